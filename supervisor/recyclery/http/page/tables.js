// Tables whose rows become blocks on a narrow screen; roles are told, as such a row is no longer one of itself.

import { element } from "./words.js";

// A column is {name, kind}: title, number, fixed, moment, wide or none. A row is an array of texts or elements.
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

// Each is [name, figure, tone].
export function tiles(place, figures) {
  place.replaceChildren(...figures.map(([name, figure, tone]) =>
    element("div", {}, element("dt", {}, name), element("dd", { class: tone ?? "" }, String(figure)))));
}
