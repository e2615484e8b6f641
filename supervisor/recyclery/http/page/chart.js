// Memory over time: lines against axes with units, and below them a mark wherever something was done.

import { clock, day, drawn, element, moment, size, zone } from "./words.js";

const MIB = 1 << 20;
const HEIGHT = 320, NARROW_HEIGHT = 260, NARROW = 560;
const ROOM = { left: 62, right: 10, top: 8, bottom: 70 };
const MARK_ROW = 25, MARK_APART = 12, MARK_REACH = 9, DEEDS_TOLD = 5, TIP_WIDTH = 400;
const STEPS = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800];
// A limit so far above all else would press the lines to the ground.
const FAR = 2.5;
// So many steps without a look are a gap: the governor was not there.
const GAP = 2.5;

export class Chart {
  #place; #svg; #tip; #cursor; #data; #levels; #x; #y; #groups = []; #chosen = null;

  constructor(place) {
    this.#place = place;
    this.#tip = element("div", { class: "tip", hidden: "" });
    this.#svg = drawn("svg", { tabindex: 0, role: "slider", "aria-valuemin": 0, "aria-valuenow": 0,
      "aria-label": "Memory over time: arrow keys go through it, with shift from action to action" });
    this.#listen();
    place.replaceChildren(this.#svg, this.#tip);
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  // `levels` are {name, bytes}; each action has a `tone` that tells how grave it is.
  show(data, levels) {
    [this.#data, this.#levels] = [data, levels];
    this.#draw();
  }

  #draw() {
    const width = this.#place.clientWidth;
    if (!this.#data || width < 100) return;
    const height = width < NARROW ? NARROW_HEIGHT : HEIGHT;
    const { since, until } = this.#data, top = this.#top();
    const right = width - ROOM.right, bottom = height - ROOM.bottom;
    this.#x = (at) => ROOM.left + ((at - since) / (until - since)) * (right - ROOM.left);
    this.#y = (bytes) => bottom - (bytes / top) * (bottom - ROOM.top);
    this.#cursor = drawn("line", { class: "cursor", y1: ROOM.top, y2: bottom + MARK_ROW, visibility: "hidden" });
    for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, height,
      "aria-valuemax": Math.max(0, this.#data.at.length - 1) })) this.#svg.setAttribute(key, value);
    this.#svg.replaceChildren(...this.#upright(top, right), ...this.#across(right, bottom, height),
      ...this.#lines(right, top), ...this.#marks(bottom), this.#cursor);
    if (this.#chosen !== null) this.#choose(Math.min(this.#chosen, this.#data.at.length - 1));
  }

  #top() {
    const { floor_bytes, usage_bytes, pools } = this.#data;
    const highest = Math.max(16 * MIB, ...floor_bytes, ...usage_bytes, ...Object.values(pools).flat());
    const limit = Math.max(0, ...this.#levels.map((level) => level.bytes));
    return limit && limit <= FAR * highest ? Math.max(limit, highest) * 1.04 : highest * 1.1;
  }

  #upright(top, right) {
    let step = 2 ** Math.ceil(Math.log2(top / 6));
    if (step < MIB) step = MIB;
    const found = [];
    for (let bytes = 0; bytes <= top; bytes += step) {
      const y = Math.round(this.#y(bytes)) + 0.5;
      found.push(drawn("line", { class: "grid", x1: ROOM.left, x2: right, y1: y, y2: y }),
        drawn("text", { x: ROOM.left - 8, y: y + 4, "text-anchor": "end" }, bytes ? size(bytes) : "0 MiB"));
    }
    return found;
  }

  #across(right, bottom, height) {
    const { since, until } = this.#data, away = new Date(since * 1000).getTimezoneOffset() * 60;
    const most = Math.max(2, (right - ROOM.left) / 68);
    const step = STEPS.find((seconds) => (until - since) / seconds <= most) ?? STEPS.at(-1);
    const y = bottom + MARK_ROW + 0.5;
    const found = [drawn("line", { class: "axis", x1: ROOM.left, x2: right, y1: y, y2: y })];
    for (let at = Math.ceil((since - away) / step) * step + away; at <= until; at += step) {
      const x = Math.round(this.#x(at)) + 0.5, midnight = (at - away) % 86400 === 0;
      found.push(drawn("line", { class: "axis", x1: x, x2: x, y1: y, y2: y + 5 }));
      if (x > ROOM.left + 12 && x < right - 28)
        found.push(drawn("text", { x, y: y + 19, "text-anchor": "middle" }, midnight ? day(at) : clock(at)));
    }
    found.push(drawn("text", { x: right, y: height - 6, "text-anchor": "end" }, `time, ${zone()}`),
      drawn("text", { x: ROOM.left - 8, y: y - 4, "text-anchor": "end" }, "actions"));
    return found;
  }

  #lines(right, top) {
    const { floor_bytes, usage_bytes, pools } = this.#data;
    const levels = this.#levels.filter((level) => level.bytes <= top).map((level) => {
      const y = Math.round(this.#y(level.bytes)) + 0.5;
      return drawn("line", { class: level.name, x1: ROOM.left, x2: right, y1: y, y2: y });
    });
    return [...levels, this.#line(usage_bytes, "usage"),
      ...Object.values(pools).map((sizes, place) => this.#line(sizes, `pool-${place % 6}`)),
      this.#line(floor_bytes, "floor")];
  }

  #line(sizes, name) {
    const { at, step_seconds } = this.#data;
    let path = "", before = -Infinity;
    sizes.forEach((bytes, place) => {
      if (bytes === null) return;
      const joined = at[place] - before <= GAP * step_seconds;
      const x = this.#x(Math.max(this.#data.since, at[place])).toFixed(1);
      // A lone step is drawn as a dot: a line of no length with round ends.
      path += `${joined ? "L" : `M${x} ${this.#y(bytes).toFixed(1)}L`}${x} ${this.#y(bytes).toFixed(1)}`;
      before = at[place];
    });
    return drawn("path", { class: `course ${name}`, d: path });
  }

  #marks(bottom) {
    const groups = new Map();
    for (const deed of this.#data.actions) {
      const slot = Math.round(this.#x(deed.at) / MARK_APART);
      groups.set(slot, [...(groups.get(slot) ?? []), deed]);
    }
    this.#groups = [...groups.values()].map((deeds) => ({ deeds, x: this.#x(deeds[0].at), at: deeds[0].at }))
      .sort((one, other) => one.x - other.x);
    return this.#groups.map(({ deeds, x }) => {
      const tone = ["bad", "worry"].find((grave) => deeds.some((deed) => deed.tone === grave)) ?? "";
      const y = bottom + 11;
      return drawn("path", { class: `mark ${tone}`, d: `M${x - 4.5} ${y + 9}h9l-4.5 -9z` });
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
    const x = event.clientX - this.#svg.getBoundingClientRect().left;
    const group = this.#groups.find((one) => Math.abs(one.x - x) <= MARK_REACH);
    const { since, until, at } = this.#data;
    const when = group?.at ?? since + ((x - this.#x(since)) / (this.#x(until) - this.#x(since))) * (until - since);
    if (at.length) this.#choose(this.#nearest(when), group);
  }

  #nearest(when) {
    const { at } = this.#data;
    let found = 0;
    at.forEach((moment, place) => {
      if (Math.abs(moment - when) < Math.abs(at[found] - when)) found = place;
    });
    return found;
  }

  #press(event) {
    const last = this.#data.at.length - 1, ways = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === "Escape") return this.#choose(null);
    if (last < 0 || !(event.key in ways || event.key === "Home" || event.key === "End")) return undefined;
    event.preventDefault();
    const way = ways[event.key];
    if (event.key === "Home") return this.#choose(0);
    if (event.key === "End" || this.#chosen === null) return this.#choose(last);
    if (!event.shiftKey) return this.#choose(Math.max(0, Math.min(last, this.#chosen + way)));
    const places = this.#groups.map((group) => ({ group, place: this.#nearest(group.at) }));
    const next = way > 0 ? places.find(({ place }) => place > this.#chosen)
      : places.findLast(({ place }) => place < this.#chosen);
    return next && this.#choose(next.place, next.group);
  }

  #choose(place, group) {
    this.#chosen = place;
    this.#tip.hidden = place === null;
    this.#cursor.setAttribute("visibility", place === null ? "hidden" : "visible");
    if (place === null || place < 0) return;
    const x = this.#x(Math.max(this.#data.since, this.#data.at[place]));
    const shown = group ?? this.#groups.find((one) => Math.abs(one.x - x) <= MARK_REACH);
    this.#cursor.setAttribute("x1", x);
    this.#cursor.setAttribute("x2", x);
    const lines = this.#tell(place, shown);
    this.#tip.replaceChildren(...lines.map(([text, tone]) => element("p", { class: tone ?? "" }, text)));
    this.#svg.setAttribute("aria-valuenow", place);
    this.#svg.setAttribute("aria-valuetext", lines.map(([text]) => text).join("; "));
    // On the side where there is more room.
    const left = x < this.#place.clientWidth / 2;
    this.#tip.style.left = left ? `${x + 12}px` : "auto";
    this.#tip.style.right = left ? "auto" : `${this.#place.clientWidth - x + 12}px`;
    this.#tip.style.maxWidth = `${Math.min(TIP_WIDTH, Math.max(x, this.#place.clientWidth - x) - 20)}px`;
  }

  #tell(place, group) {
    const { at, floor_bytes, usage_bytes, pools } = this.#data;
    const said = [[moment(at[place]), "strong"], [`not reclaimable: ${size(floor_bytes[place])}`],
      [`usage: ${size(usage_bytes[place])}`]];
    for (const [name, sizes] of Object.entries(pools))
      if (sizes[place] !== null) said.push([`pool ${name}: ${size(sizes[place])}`]);
    for (const deed of group?.deeds.slice(0, DEEDS_TOLD) ?? [])
      said.push([`${clock(deed.at)} ${deed.done ? "" : "in vain: "}${deed.line}`, deed.tone]);
    if (group?.deeds.length > DEEDS_TOLD) said.push([`and ${group.deeds.length - DEEDS_TOLD} more`]);
    return said;
  }
}

const step = (seconds) => (seconds < 60 ? `${seconds} s` : `${seconds / 60} min`);

export function legend(place, data, levels) {
  const entries = [["floor", "not reclaimable"], ["usage", "usage, mean"],
    ...Object.keys(data.pools).map((name, number) => [`pool-${number % 6}`, `pool ${name}`]),
    ...levels.map(({ name, bytes }) => [name, `${name} ${size(bytes)}`])];
  place.replaceChildren(...entries.map(([style, text]) => element("li", {},
    drawn("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" },
      drawn("line", { class: `course ${style}`, x1: 0, x2: 28, y1: 5, y2: 5 })), text)),
  element("li", {}, drawn("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" },
    drawn("path", { class: "mark", d: "M9.5 9.5h9l-4.5 -9z" })), `action; the lines have steps of ${step(data.step_seconds)}`));
}
