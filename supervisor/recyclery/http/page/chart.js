// Lines and points against axes with units, and below them a mark wherever something was done; boxes of many values.
// The page and the report files draw with this alone; every value can be read with the pointer and with keys.

import { MIB, clock, day, drawn, element, mebibytes, short, size } from "./words.js";

const HEIGHT = 320, NARROW_HEIGHT = 260, NARROW = 560, LEFT = 62, RIGHT = 10;
const MARK_ROW = 25, MARK_APART = 12, MARK_REACH = 9, POINT_APART = 7, MOST_VALUES = 8, MOST_MARKS = 5, TIP_WIDTH = 400, LETTER = 6.5;
const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];
// A limit this many times above all values would flatten the lines, so it is left out.
const FAR = 2.5;

// The units of an axis: the spacing of its ticks and their text.
const KINDS = {
  bytes: { step: (least) => 2 ** Math.ceil(Math.log2(least)), show: tickSize },
  number: { step: roundStep, show: short },
  count: { step: (least) => Math.max(1, roundStep(least)), show: String },
};

function tickSize(bytes) {
  if (!bytes) return "0 MiB";
  return bytes % MIB && Math.abs(bytes) > MIB && Math.abs(bytes) < 16 * MIB ? `${mebibytes(bytes)} MiB` : size(bytes);
}

function roundStep(least) {
  const ten = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].find((digit) => digit * ten >= least) * ten;
}

function ticks(kind, from, to, most) {
  const step = KINDS[kind].step((to - from) / most), first = Math.ceil(from / step);
  return Array.from({ length: Math.floor(to / step) - first + 1 }, (_, number) => (first + number) * step)
    .map((at) => ({ at, text: KINDS[kind].show(at) }));
}

function timeTicks(from, to, most) {
  const away = new Date(from * 1000).getTimezoneOffset() * 60, found = [];
  const step = STEPS.find((seconds) => (to - from) / seconds <= most) ?? STEPS.at(-1);
  for (let at = Math.ceil((from - away) / step) * step + away; at <= to; at += step)
    found.push({ at, text: (at - away) % 86400 === 0 ? day(at) : clock(at) });
  return found;
}

const lowest = (values, least) => values.reduce((one, other) => Math.min(one, other), least);
const highest = (values, least) => values.reduce((one, other) => Math.max(one, other), least);
const firstOf = (most, texts) =>
  (texts.length > most ? [...texts.slice(0, most), [`and ${texts.length - most} more`]] : texts);

// A figure is {x, y, lines, levels, marks, keys}.
// x: {kind: "time" or one of KINDS, name, show, from, to}; y: {kind, name, show, unit, least}.
// A line: {name, style, at, values} and, optionally: low, high (null: not known), gap (values further apart are not
// joined), stepped, quiet (not in the tip), dots and labels (one for each value), describe (the tip's text by index).
// A level: {name, style, value}. A mark: {at, tone, text}. A key, for the legend only: {style, text}.
export class Chart {
  #place; #svg; #tip; #cursor; #figure; #stops = []; #x; #y; #top; #bottom; #groups = []; #chosen = null; #name;

  constructor(place, name) {
    [this.#place, this.#name] = [place, name];
    this.#tip = element("div", { class: "tip", hidden: "" });
    this.#svg = drawn("svg", { tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuenow": 0 });
    this.#listen();
    place.replaceChildren(this.#svg, this.#tip);
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  show(figure) {
    this.#figure = figure;
    this.#stops = [...new Set(figure.lines.flatMap((line) => line.at))].sort((one, other) => one - other);
    this.#draw();
  }

  #draw() {
    const width = this.#place.clientWidth;
    if (!this.#figure || width < 100) return;
    const { x, y, lines, marks } = this.#figure, height = width < NARROW ? NARROW_HEIGHT : HEIGHT;
    const right = width - RIGHT, bottom = height - (marks ? MARK_ROW : 0) - 45, top = y.name ? 28 : 8;
    [this.#top, this.#bottom] = [top, bottom];
    const from = x.from ?? 0, to = x.to ?? (highest(this.#stops, from) * 1.06 || 1), [low, high] = this.#reach();
    this.#x = (value) => LEFT + ((Math.max(from, value) - from) / (to - from || 1)) * (right - LEFT);
    this.#y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
    this.#cursor = drawn("g", { visibility: "hidden" });
    const between = marks ? ", with shift from action to action" : "";
    for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, height,
      "aria-label": `${this.#name}: arrow keys go through it${between}`,
      "aria-valuemax": Math.max(0, this.#stops.length - 1) })) this.#svg.setAttribute(key, value);
    this.#svg.replaceChildren(...this.#upright(low, high, right), ...this.#across(from, to, right, height),
      ...this.#levels(high, right), ...lines.map((line) => this.#line(line)).reverse(),
      ...lines.flatMap((line, number) => this.#dots(line, number)), ...this.#labels(width), ...this.#marks(),
      this.#cursor);
    if (this.#chosen !== null) this.#choose(this.#stops.length ? Math.min(this.#chosen, this.#stops.length - 1) : null);
  }

  #reach() {
    const { lines, levels, y } = this.#figure;
    const values = lines.flatMap((line) => [...line.values, ...(line.low ?? []), ...(line.high ?? [])])
      .filter(Number.isFinite);
    const most = highest(values, y.least ?? 0), least = lowest(values, 0);
    const limit = highest(levels.map((level) => level.value), 0);
    const high = limit && limit <= FAR * most ? Math.max(limit, most) * 1.04 : most * 1.1;
    return [least * 1.1, high || 1];
  }

  #upright(low, high, right) {
    const { kind, name } = this.#figure.y;
    const found = ticks(kind, low, high, 6).flatMap(({ at, text }) => {
      const y = Math.round(this.#y(at)) + 0.5;
      return [drawn("line", { class: "grid", x1: LEFT, x2: right, y1: y, y2: y }),
        drawn("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, text)];
    });
    return name ? [...found, drawn("text", { class: "name", x: 2, y: this.#top - 16 }, name)] : found;
  }

  #across(from, to, right, height) {
    const { x: { kind, name }, marks } = this.#figure, most = Math.max(2, (right - LEFT) / 68);
    const y = this.#bottom + (marks ? MARK_ROW : 0) + 0.5;
    const found = [drawn("line", { class: "axis", x1: LEFT, x2: right, y1: y, y2: y }),
      drawn("text", { class: "name", x: right, y: height - 6, "text-anchor": "end" }, name)];
    if (marks) found.push(drawn("text", { x: LEFT - 8, y: y - 4, "text-anchor": "end" }, "actions"));
    for (const { at, text } of kind === "time" ? timeTicks(from, to, most) : ticks(kind, from, to, most)) {
      const x = Math.round(this.#x(at)) + 0.5;
      found.push(drawn("line", { class: "axis", x1: x, x2: x, y1: y, y2: y + 5 }));
      if (x + (text.length / 2) * LETTER < right + RIGHT)
        found.push(drawn("text", { x, y: y + 19, "text-anchor": "middle" }, text));
    }
    return found;
  }

  #levels(high, right) {
    return this.#figure.levels.filter((level) => level.value <= high).map(({ style, value }) => {
      const y = Math.round(this.#y(value)) + 0.5;
      return drawn("line", { class: `course ${style}`, x1: LEFT, x2: right, y1: y, y2: y });
    });
  }

  #line({ at, values, style, gap = Infinity, stepped }) {
    let path = "", before = null;
    at.forEach((moment, place) => {
      if (values[place] === null) return;
      const [x, y] = [this.#x(moment).toFixed(1), this.#y(values[place]).toFixed(1)];
      const joined = before !== null && moment - before <= gap;
      // A single value is drawn as a dot: a line of length zero with round ends.
      path += joined ? (stepped ? `H${x}V${y}` : `L${x} ${y}`) : `M${x} ${y}L${x} ${y}`;
      before = moment;
    });
    return drawn("path", { class: `course ${style}`, d: path });
  }

  // Points of several lines at one x stand side by side, each with its interval; one without a bound is open.
  #dots({ at, values, low, high, style, dots }, number) {
    if (!dots) return [];
    const dotted = this.#figure.lines.filter((line) => line.dots).length;
    return at.flatMap((moment, place) => {
      const x = this.#x(moment) + (low ? (number - (dotted - 1) / 2) * POINT_APART : 0), y = this.#y(values[place]);
      const found = [drawn("circle", { class: `dot ${style} ${dots[place]}`, cx: x, cy: y, r: 4 })];
      if (dots[place].includes("chosen")) found.push(drawn("circle", { class: `ring ${style}`, cx: x, cy: y, r: 8 }));
      if (low) {
        const [least, most] = [this.#y(low[place]), high[place] === null ? this.#top : this.#y(high[place])];
        found.unshift(drawn("path", { class: `interval ${style}`,
          d: `M${x - 3} ${least}h6m-3 0V${most}${high[place] === null ? "" : "m-3 0h6"}` }));
      }
      return found;
    });
  }

  // A label that would overlap another is left out: the tip has it.
  #labels(width) {
    if (width < NARROW) return [];
    const put = [];
    for (const { at, values, labels } of this.#figure.lines.filter((line) => line.labels))
      at.forEach((moment, place) => {
        const text = labels[place], x = this.#x(moment), y = this.#y(values[place]) - 11;
        if (put.every((one) => Math.abs(one.x - x) > (one.text.length + text.length) * LETTER / 2 + 4
          || Math.abs(one.y - y) > 14)) put.push({ x, y, text });
      });
    return put.map(({ x, y, text }) => drawn("text", { x, y, "text-anchor": "middle" }, text));
  }

  #marks() {
    const groups = new Map();
    for (const mark of this.#figure.marks ?? []) {
      const slot = Math.round(this.#x(mark.at) / MARK_APART);
      groups.set(slot, [...(groups.get(slot) ?? []), mark]);
    }
    this.#groups = [...groups.values()].map((marks) => ({ marks, x: this.#x(marks[0].at), at: marks[0].at }))
      .sort((one, other) => one.x - other.x);
    return this.#groups.map(({ marks, x }) => {
      const tone = ["bad", "worry"].find((grave) => marks.some((mark) => mark.tone === grave)) ?? "";
      return drawn("path", { class: `mark ${tone}`, d: `M${x - 4.5} ${this.#bottom + 20}h9l-4.5 -9z` });
    });
  }

  #listen() {
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerdown", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => this.#choose(null));
    this.#svg.addEventListener("blur", () => this.#choose(null));
    this.#svg.addEventListener("keydown", (event) => this.#press(event));
  }

  #point(event) {
    const box = this.#svg.getBoundingClientRect(), x = event.clientX - box.left;
    const group = this.#groups.find((one) => Math.abs(one.x - x) <= MARK_REACH);
    if (this.#stops.length) this.#choose(this.#nearest(group ? this.#x(group.at) : x), group, event.clientY - box.top);
  }

  #nearest(x) {
    let found = 0;
    this.#stops.forEach((stop, place) => {
      if (Math.abs(this.#x(stop) - x) < Math.abs(this.#x(this.#stops[found]) - x)) found = place;
    });
    return found;
  }

  #press(event) {
    const last = this.#stops.length - 1, ways = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === "Escape") return this.#choose(null);
    if (last < 0 || !(event.key in ways || event.key === "Home" || event.key === "End")) return undefined;
    event.preventDefault();
    const way = ways[event.key];
    if (event.key === "Home") return this.#choose(0);
    if (event.key === "End" || this.#chosen === null) return this.#choose(last);
    if (!event.shiftKey) return this.#choose(Math.max(0, Math.min(last, this.#chosen + way)));
    const places = this.#groups.map((group) => ({ group, place: this.#nearest(this.#x(group.at)) }));
    const next = way > 0 ? places.find(({ place }) => place > this.#chosen)
      : places.findLast(({ place }) => place < this.#chosen);
    return next && this.#choose(next.place, next.group);
  }

  #choose(place, group, pointed = 0) {
    this.#chosen = place;
    this.#tip.hidden = place === null;
    this.#cursor.setAttribute("visibility", place === null ? "hidden" : "visible");
    if (place === null) return;
    const x = this.#x(this.#stops[place]), values = this.#values(this.#stops[place], pointed);
    const shown = group ?? this.#groups.find((one) => Math.abs(one.x - x) <= MARK_REACH);
    const texts = [[this.#figure.x.show(this.#stops[place]), "strong"],
      ...firstOf(MOST_VALUES, values.map(({ line, at }) => [this.#describe(line, at)])),
      ...firstOf(MOST_MARKS, shown?.marks.map(({ text, tone }) => [text, tone]) ?? [])];
    this.#cursor.replaceChildren(drawn("line", { class: "cursor", x1: x, x2: x, y1: this.#top,
      y2: this.#bottom + (this.#figure.marks ? MARK_ROW : 0) }), ...values.slice(0, MOST_VALUES)
      .filter(({ line }) => !line.dots)
      .map(({ line, y }) => drawn("circle", { class: `dot hollow ${line.style}`, cx: x, cy: y, r: 3.5 })));
    this.#tip.replaceChildren(...texts.map(([text, tone]) => element("p", { class: tone ?? "" }, text)));
    this.#svg.setAttribute("aria-valuenow", place);
    this.#svg.setAttribute("aria-valuetext", texts.map(([text]) => text).join("; "));
    // On the side where there is more room.
    const left = x < this.#place.clientWidth / 2;
    this.#tip.style.left = left ? `${x + 12}px` : "auto";
    this.#tip.style.right = left ? "auto" : `${this.#place.clientWidth - x + 12}px`;
    this.#tip.style.maxWidth = `${Math.min(TIP_WIDTH, Math.max(x, this.#place.clientWidth - x) - 20)}px`;
  }

  // The values at one x. If there are too many for the tip, the nearest to the pointer come first.
  #values(stop, pointed) {
    const found = this.#figure.lines.filter((line) => !line.quiet).map((line) => ({ line, at: line.at.indexOf(stop) }))
      .filter(({ line, at }) => at >= 0 && line.values[at] !== null)
      .map(({ line, at }) => ({ line, at, y: this.#y(line.values[at]) }));
    const away = ({ y }) => Math.abs(y - pointed);
    return found.length > MOST_VALUES ? found.sort((one, other) => away(one) - away(other)) : found;
  }

  #describe(line, at) {
    if (line.describe) return line.describe(at);
    const { show, unit = "" } = this.#figure.y, value = `${line.name}: ${show(line.values[at])}`;
    if (!line.low) return value + unit;
    return `${value} (${show(line.low[at])} to ${line.high[at] === null ? "not known" : show(line.high[at])})${unit}`;
  }
}

// One entry for each line's name, each level and each key.
export function legend(place, { lines, levels, marks, keys = [], marksName }) {
  const stroke = (style) => drawn("line", { class: `course ${style}`, x1: 0, x2: 28, y1: 5, y2: 5 });
  const dot = (style, r = 4) => drawn("circle", { class: style, cx: 14, cy: 5, r });
  const named = [...new Map(lines.map((line) => [line.name, line])).values()];
  const entries = [
    ...named.map(({ name, style, dots }) => [name, stroke(style), ...(dots ? [dot(`dot ${style}`)] : [])]),
    ...levels.map(({ name, style }) => [name, stroke(style)]),
    ...keys.map(({ style, text }) => [text, dot(`dot ${style}`), ...(style === "chosen" ? [dot("ring", 6.5)] : [])]),
    ...(marks ? [[marksName, drawn("path", { class: "mark", d: "M9.5 9.5h9l-4.5 -9z" })]] : [])];
  place.replaceChildren(...entries.map(([text, ...drawing]) =>
    element("li", {}, drawn("svg", { viewBox: "-1 -2 30 14", "aria-hidden": "true" }, ...drawing), text)));
}

// Box plots, one a row: {name, runs, least, low, first, median, third, high, most, far}, in bytes. The box spans the
// quartiles, its lines reach to `low` and `high`, and single values beyond them are `far`.
export function boxes(place, rows, unit) {
  if (!rows.length) return;
  const least = lowest(rows.map((row) => row.least), 0), most = highest(rows.map((row) => row.most), 0);
  const room = (most - least || 1) * 0.07, from = least - room, to = most + room;
  const x = (bytes) => `${((100 * (bytes - from)) / (to - from)).toFixed(2)}%`;
  const marks = ticks("bytes", from, to, 5);
  const grid = marks.map(({ at }) => drawn("line", { class: "grid", x1: x(at), x2: x(at), y1: 0, y2: "100%" }));
  const drawing = ({ low, first, median, third, high, far }) => [
    ...[[low, first], [third, high]].map(([begin, end]) =>
      drawn("line", { class: "interval", x1: x(begin), x2: x(end), y1: 12, y2: 12 })),
    drawn("rect", { class: "box", x: x(first), width: `${(100 * (third - first)) / (to - from)}%`, y: 4, height: 16 }),
    drawn("line", { class: "median", x1: x(median), x2: x(median), y1: 4, y2: 20 }),
    ...far.map((bytes) => drawn("circle", { class: "dot", cx: x(bytes), cy: 12, r: 2 }))];
  place.replaceChildren(
    ...rows.map((row) => element("div", {}, element("p", {}, element("b", {}, row.name), ` ${describeBox(row)}`),
      drawn("svg", { height: 24, "aria-hidden": "true" }, ...grid.map((line) => line.cloneNode()), ...drawing(row)))),
    drawn("svg", { height: 36, "aria-hidden": "true" },
      ...marks.map(({ at, text }) => drawn("text", { x: x(at), y: 14, "text-anchor": "middle" }, text)),
      drawn("text", { class: "name", x: "100%", y: 31, "text-anchor": "end" }, unit)));
}

function describeBox({ runs, least, first, median, third, most }) {
  const [low, half, middle, upper, high] = [least, first, median, third, most].map(mebibytes);
  return `${runs} runs: half of them ${half} to ${upper} MiB, the median ${middle}, the least ${low}, the most ${high}`;
}
