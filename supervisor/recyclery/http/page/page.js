// Asks the API again and again, and shows what it says.

import { Chart, legend } from "./chart.js";
import { actionsTable, countActions, memoryFigure } from "./memory.js";
import { table, tiles } from "./tables.js";
import { age, element, mebibytes, moment, size } from "./words.js";

const STATUS_MS = 2000, PAST_MS = 5000, SLOW_PAST_MS = 30000, LEAKS_MS = 60000, LEAKS_SOON_MS = 5000;
const ANSWER_MS = 30000, SILENT_MS = 7000;
const SPANS = [["15m", "15 min", 900], ["1h", "1 h", 3600], ["6h", "6 h", 21600], ["24h", "24 h", 86400],
  ["7d", "7 d", 604800]];
const MOST_LEAKS = 40, FIRST_EVENTS = 8;
const RISING = new Set(["starting", "draining", "stopping"]);
const SHAPES = { leak: "bad", step: "bad", undecided: "worry", plateau: "good", none: "good" };
const PLACES = { python: "Python", browser: "Chrome", shared: "shm", other: "others", files: "shm files" };

const place = (id) => document.getElementById(id);
const chart = new Chart(place("chart"), "Memory over time");
const known = { status: null, past: null, span: "1h", heard: Date.now(), silent: "" };

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(ANSWER_MS) });
  if (answer.status === 401) location.assign("/sign-in");
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}

// One question at a time of each kind, and none while nobody looks.
function repeat(work) {
  let timer, turn = 0;
  const go = async () => {
    const mine = ++turn;
    clearTimeout(timer);
    const pause = document.hidden ? STATUS_MS : await work().catch(() => STATUS_MS);
    if (mine === turn) timer = setTimeout(go, pause);
  };
  document.addEventListener("visibilitychange", () => document.hidden || go());
  go();
  return go;
}

const reading = () => !getSelection().isCollapsed;

async function lookNow() {
  try {
    known.status = await ask("/api/status");
    known.heard = Date.now();
    if (!reading()) showNow(known.status);
  } catch (error) {
    known.silent = String(error.message ?? error);
  }
  showSilence();
  return STATUS_MS;
}

function showSilence() {
  const silence = Date.now() - known.heard;
  const away = silence > SILENT_MS;
  place("silence").hidden = !away;
  place("content").classList.toggle("stale", away);
  if (away) {
    const below = known.status ? " Below is how it was." : "";
    place("silence").textContent =
      `The supervisor has not answered for ${age(silence / 1000)} (${known.silent || "no answer"}).${below}`;
    place("verdict").hidden = true;
  }
}

function showNow({ at, host, version, signed_in, status, troubles }) {
  place("where").textContent = `${host} · ${moment(at)} · ${version}`;
  document.title = `${troubles.length ? `${troubles.length} wrong` : "well"} · Recyclery on ${host}`;
  place("leave").hidden = !signed_in;
  const verdict = place("verdict");
  verdict.hidden = false;
  verdict.textContent = troubles.length ? `${troubles.length} wrong` : "all is well";
  verdict.className = `verdict ${troubles.length ? (troubles[0].bad ? "bad" : "worry") : "good"}`;
  place("troubles").replaceChildren(...troubles.map(({ text, bad }) =>
    element("li", { class: bad ? "bad" : "worry" }, `${bad ? "‼" : "!"} ${text}`)));
  showMemory(status.container, status.governor);
  place("pools").replaceChildren(...Object.entries(status.pools).map(([name, pool]) => showPool(name, pool)));
  showBrowsers(status.browsers, status.tasks);
  showRecent(at, status.recent);
}

function showMemory(container, governor) {
  const { floor_bytes, limit_bytes, high_bytes, retire_bytes } = container;
  const tone = floor_bytes >= high_bytes ? "bad" : floor_bytes >= retire_bytes ? "worry" : "good";
  tiles(place("memory"), [
    ["not reclaimable", `${size(floor_bytes)}, ${Math.round((100 * floor_bytes) / Math.max(1, limit_bytes))} %`, tone],
    ["limit", size(limit_bytes)],
    ["usage", size(container.usage_bytes)],
    ["working set", size(container.working_set_bytes)],
    ["not the pools’", size(container.unattributed_bytes)],
    ["OOM kills", container.oom_kills, container.oom_kills ? "bad" : ""],
    ["governor’s CPU time", age(governor.cpu_seconds)],
  ]);
}

function showPool(name, pool) {
  const busy = pool.children.filter((child) => child.task !== null).length;
  const state = pool.state !== "running" ? pool.state : pool.holding ? "on hold" : "running";
  const tone = state === "running" ? "good" : state === "on hold" || RISING.has(state) ? "worry" : "bad";
  const recycles = Object.entries(pool.recycles).map(([reason, number]) => `${number} ${reason}`).join(", ") || "none";
  const depth = pool.queue_depth === null ? "not known how many wait" : `${pool.queue_depth} waiting`;
  const beside = [...(pool.successor ? [`${pool.successor.slot} starts to take over from ${pool.slot}`] : []),
    ...pool.draining.map(({ slot, tasks }) => `${slot} drains: ${tasks.join(", ") || "no task any more"}`)];
  const children = [...pool.children].sort((one, other) => (one.task === null) - (other.task === null)
    || (other.task_seconds ?? 0) - (one.task_seconds ?? 0) || one.pid - other.pid);
  return element("article", { class: "pool" },
    element("div", { class: "pool-head" }, element("h3", {}, name), element("span", { class: `strong ${tone}` }, state),
      element("span", {}, `${busy} of ${pool.concurrency} busy`), element("span", { class: "waiting strong" }, depth),
      element("span", { class: "faint" }, `queues ${pool.queues.join(", ")}`),
      element("span", { class: "faint" }, `${pool.max_tasks_per_child} tasks per child; recycles: ${recycles}`)),
    ...beside.map((text) => element("p", { class: "worry" }, text)),
    children.length ? table(`Children of ${name}`, CHILD, children.map(showChild))
      : element("p", { class: "faint" }, "No children."));
}

const CHILD = [{ name: "task", kind: "title" }, { name: "for", kind: "number" }, { name: "memory", kind: "number" },
  { name: "browser", kind: "number" }, { name: "done", kind: "number" }, { name: "age", kind: "number" },
  { name: "pid", kind: "number" }];

function showChild(child) {
  const task = child.task ?? element("span", { class: "faint" }, "idle");
  return [task, child.task_seconds === null ? "–" : age(child.task_seconds), size(child.tree_bytes),
    child.tree_browser_bytes ? size(child.tree_browser_bytes) : "–", String(child.tasks_done), age(child.age_seconds),
    String(child.pid)];
}

function showBrowsers(browsers, tasks) {
  const wrong = (number) => (number ? "worry" : "");
  tiles(place("browsers"), [
    ["browsers in use", browsers.in_use], ["of them kept", browsers.kept],
    ["left over", browsers.leftovers, wrong(browsers.leftovers)], ["orphaned", browsers.orphans, wrong(browsers.orphans)],
    ["runaway", browsers.runaway, wrong(browsers.runaway)], ["strangers", browsers.strangers, wrong(browsers.strangers)],
    ["defunct processes", browsers.defunct, wrong(browsers.defunct)], ["reaped so far", browsers.reaped],
    ["tasks given back", tasks.reclaimed], ["tasks parked", tasks.parked, wrong(tasks.parked)],
  ]);
}

let allRecent = false;
function showRecent(at, recent) {
  if (!recent.length) return place("recent").replaceChildren(element("p", { class: "faint" }, "Nothing yet."));
  const rows = recent.slice(0, allRecent ? recent.length : FIRST_EVENTS).map((event) =>
    [`${age(event.age_seconds)} ago`, element("span", { class: event.done ? "" : "worry" },
      `${event.done ? "" : "in vain: "}${event.text}`)]);
  const found = [table("Since the governor’s start, the newest first",
    [{ name: "when", kind: "moment" }, { name: "what, and why", kind: "wide" }], rows)];
  if (recent.length > FIRST_EVENTS) {
    const button = element("button", {}, allRecent ? "Show fewer" : `Show all ${recent.length}`);
    button.addEventListener("click", () => { allRecent = !allRecent; showRecent(at, recent); });
    // A click must not come between a look and the next, with the button gone under it.
    const before = place("recent").querySelector("button") === document.activeElement;
    place("recent").replaceChildren(...found, button);
    return before ? button.focus() : undefined;
  }
  return place("recent").replaceChildren(...found);
}

async function lookBack() {
  const span = known.span, { timeline, problem } = await ask(`/api/history?span=${span}`);
  if (span !== known.span) return 0;
  place("past-problem").hidden = !problem;
  place("past-problem").textContent = problem;
  for (const id of ["chart", "legend", "deeds"]) place(id).hidden = !timeline;
  if (timeline && !reading()) showPast(timeline);
  return span === "15m" || span === "1h" ? PAST_MS : SLOW_PAST_MS;
}

function showPast(timeline) {
  const container = known.status?.status.container;
  const figure = memoryFigure(timeline, [{ name: "limit", bytes: timeline.limit_bytes.at(-1) ?? 0 },
    ...(container ? [{ name: "hard", bytes: container.hard_bytes }, { name: "high", bytes: container.high_bytes }] : [])]);
  chart.show(figure);
  legend(place("legend"), figure);
  showSpans(timeline);
  place("deeds-count").textContent = countActions(timeline);
  place("deeds-table").replaceChildren(...actionsTable(timeline));
}

function showSpans({ kept_since, until }) {
  const kept = kept_since === null ? 0 : until - kept_since;
  SPANS.forEach(([name, , seconds], number) => {
    const button = place("spans").children[number];
    button.setAttribute("aria-pressed", String(name === known.span));
    // One that shows no more than the one before it is of no use.
    const before = number ? SPANS[number - 1][2] : 0;
    button.disabled = kept <= before && name !== known.span && seconds > 3600;
  });
}

async function lookForLeaks() {
  const { at, report, problem } = await ask("/api/leaks");
  const said = place("leaks-said");
  if (!report) {
    said.textContent = problem;
    return LEAKS_SOON_MS;
  }
  if (reading()) return LEAKS_SOON_MS;
  const pools = report.pools.filter((pool) => pool.tasks.length);
  said.textContent = pools.length
    ? `Of runs from ${moment(report.since)} to ${moment(report.until)}; made ${moment(at)}. MiB per run: what one run `
      + "leaves in a child, ± the 95 % interval. N: how many such tasks a child has room for. Lost: children "
      + "recycled for it + OOM kills."
    : "No task has ended yet that was seen: there is nothing to tell.";
  place("leaks").replaceChildren(...pools.flatMap(showLeaks));
  return LEAKS_MS;
}

const LEAK = [{ name: "task", kind: "title" }, { name: "shape", kind: "fixed" }, { name: "runs", kind: "number" },
  { name: "MiB per run", kind: "number" }, { name: "share", kind: "number" }, { name: "where", kind: "fixed" },
  { name: "N", kind: "number" }, { name: "lost", kind: "number" }, { name: "what to make of it", kind: "wide" }];

function showLeaks(pool) {
  const fits = pool.suggested_max_tasks_per_child === null ? ""
    : `; ${pool.suggested_max_tasks_per_child} tasks per child would suit this mix`;
  const more = pool.tasks.length > MOST_LEAKS ? `; ${pool.tasks.length - MOST_LEAKS} more tasks: recyclery leaks` : "";
  const rows = pool.tasks.slice(0, MOST_LEAKS).map((task) => [task.task,
    element("b", { class: SHAPES[task.shape] ?? "" }, task.shape), String(task.runs),
    `${mebibytes(task.bytes_per_run)} ± ${task.high_bytes === null ? "?" : mebibytes(task.high_bytes - task.bytes_per_run)}`,
    `${Math.round(100 * task.share_of_growth)} %`, ["leak", "step", "undecided"].includes(task.shape) ? PLACES[task.place] ?? task.place : "–",
    String(task.suggested_max_tasks_per_child ?? "–"), `${task.recycles}+${task.oom_kills}`, task.note]);
  return [table(`Pool ${pool.pool}: ${pool.runs} runs, ${pool.max_tasks_per_child ?? "?"} tasks per child${fits}${more}`,
    LEAK, rows)];
}

place("spans").append(...SPANS.map(([name, text]) => {
  const button = element("button", { type: "button", "aria-pressed": String(name === known.span) }, text);
  button.addEventListener("click", () => { known.span = name; lookBackNow(); });
  return button;
}));
repeat(lookNow);
const lookBackNow = repeat(lookBack);
repeat(lookForLeaks);
setInterval(showSilence, 1000);
