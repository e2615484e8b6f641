// A span of the history: the memory chart and the table of actions.

import { table } from "./tables.js";
import { MIB, clock, element, moment, size, zone } from "./words.js";

// After this many steps without a sample there is a gap: the governor was not running.
const GAP = 2.5, LEAST_HEIGHT_BYTES = 16 * MIB;
const TONES = { oom: "bad", preempt: "bad", killworker: "bad", replace: "worry", retire: "worry", hold: "worry",
  timeout: "worry", abandon: "worry" };
const NAMES = { oom: "OOM kill", killworker: "kill worker", endsession: "end session", tellfell: "report a death" };

const named = (kind) => NAMES[kind] ?? kind;
const toned = (kind) => (kind.startsWith("reap") ? "" : TONES[kind] ?? "");
const stepText = (seconds) => (seconds < 60 ? `${seconds} s` : `${seconds / 60} min`);

// `levels` are {name, bytes}.
export function memoryFigure({ since, until, step_seconds, at, floor_bytes, usage_bytes, pools, actions }, levels) {
  const line = (name, style, values) => ({ name, style, at, values, gap: GAP * step_seconds });
  return {
    x: { kind: "time", name: `time, ${zone()}`, show: moment, from: since, to: until },
    y: { kind: "bytes", show: size, least: LEAST_HEIGHT_BYTES },
    lines: [line("not reclaimable", "floor", floor_bytes), line("usage, mean", "usage", usage_bytes),
      ...Object.entries(pools).map(([name, sizes], place) => line(`pool ${name}`, `line-${place % 6}`, sizes))],
    levels: levels.filter(({ bytes }) => bytes > 0)
      .map(({ name, bytes }) => ({ name: `${name} ${size(bytes)}`, style: name, value: bytes })),
    marks: actions.map(({ at, kind, done, line }) =>
      ({ at, tone: toned(kind), text: `${clock(at)} ${done ? "" : "failed: "}${line}` })),
    marksName: `action; the lines have steps of ${stepText(step_seconds)}`,
  };
}

export function countActions({ actions, actions_in_all }) {
  const rest = actions_in_all > actions.length ? `, the newest ${actions.length} below` : "";
  return `Actions in this time: ${actions_in_all}${rest}`;
}

// No table without actions.
export function actionsTable({ actions }) {
  if (!actions.length) return [];
  const counts = new Map();
  for (const { kind } of actions) counts.set(named(kind), (counts.get(named(kind)) ?? 0) + 1);
  const caption = `Newest first: ${[...counts].map(([name, number]) => `${number} ${name}`).join(", ")}`;
  const rows = actions.map(({ at, kind, pool, done, line }) => [moment(at),
    element("span", { class: toned(kind) }, `${named(kind)}${done ? "" : ", failed"}`), pool || "–", line]);
  return [table(caption, [{ name: "when", kind: "moment" }, { name: "what" }, { name: "pool" }, { name: "why", kind: "wide" }],
    rows)];
}
