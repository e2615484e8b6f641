// Tables whose rows become blocks on a narrow screen, where they lose their implicit roles: so these are explicit.

import { element } from "./words.js";

// A column is {name, kind}; kind is title, number, fixed, moment, wide or undefined. A row is an array of texts or elements.
export function table(caption, columns, rows) {
  const head = columns.map(({ name, kind }) =>
    element("th", { scope: "col", role: "columnheader", class: kind === "number" ? "number" : "" }, name));
  return element("table", { role: "table" },
    element("caption", {}, caption),
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)),
    element("tbody", { role: "rowgroup" }, ...rows.map((cells) => row(columns, cells))));
}

function row(columns, cells) {
  return element("tr", { role: "row" }, ...cells.map((cell, place) => {
    const { name, kind } = columns[place];
    return element("td", { role: "cell", class: kind ?? "", "data-name": name }, element("span", {}, cell));
  }));
}

// Each tile is [name, value, tone].
export function tiles(place, figures) {
  place.replaceChildren(...figures.map(([name, figure, tone]) =>
    element("div", {}, element("dt", {}, name), element("dd", { class: tone ?? "" }, String(figure)))));
}
