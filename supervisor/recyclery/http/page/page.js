// Polls the API and shows the answers.

import { Chart, legend } from "./chart.js";
import { actionsTable, countActions, memoryFigure } from "./memory.js";
import { table, tiles } from "./tables.js";
import { age, element, mebibytes, moment, size } from "./words.js";

const STATUS_MS = 2000, HISTORY_MS = 5000, SLOW_HISTORY_MS = 30000, LEAKS_MS = 60000, LEAKS_RETRY_MS = 5000;
const TIMEOUT_MS = 30000, SILENT_MS = 7000;
const SPANS = [["15m", "15 min", 900], ["1h", "1 h", 3600], ["6h", "6 h", 21600], ["24h", "24 h", 86400],
  ["7d", "7 d", 604800]];
const MOST_LEAKS = 40, FIRST_EVENTS = 8;
const CHANGING_STATES = new Set(["starting", "draining", "stopping"]);
const SHAPES = { leak: "bad", step: "bad", undecided: "worry", plateau: "good", none: "good" };
const PLACES = { python: "Python", browser: "Chrome", shared: "shm", other: "others", files: "shm files" };

const place = (id) => document.getElementById(id);
const chart = new Chart(place("chart"), "Memory over time");
const state = { now: null, span: "1h", answeredAt: Date.now(), error: "" };

async function fetchJson(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (answer.status === 401) location.assign("/sign-in");
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
}

// Runs `work` again after the pause that it returns; one run at a time, and none while the page is hidden.
function poll(work) {
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

// An update would clear the selection.
const isSelecting = () => !getSelection().isCollapsed;

async function updateStatus() {
  try {
    state.now = await fetchJson("/api/status");
    state.answeredAt = Date.now();
    if (!isSelecting()) showNow(state.now);
  } catch (error) {
    state.error = String(error.message ?? error);
  }
  showSilence();
  return STATUS_MS;
}

function showSilence() {
  const silence = Date.now() - state.answeredAt;
  const away = silence > SILENT_MS;
  place("silence").hidden = !away;
  place("content").classList.toggle("stale", away);
  if (away) {
    const below = state.now ? " Below is how it was." : "";
    place("silence").textContent =
      `The supervisor has not answered for ${age(silence / 1000)} (${state.error || "no answer"}).${below}`;
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
  place("problems").replaceChildren(...troubles.map(({ text, bad }) =>
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
    ["unattributed", size(container.unattributed_bytes)],
    ["OOM kills", container.oom_kills, container.oom_kills ? "bad" : ""],
    ["governor’s CPU time", age(governor.cpu_seconds)],
  ]);
}

function showPool(name, pool) {
  const busy = pool.children.filter((child) => child.task !== null).length;
  const shown = pool.state !== "running" ? pool.state : pool.holding ? "on hold" : "running";
  const tone = shown === "running" ? "good" : shown === "on hold" || CHANGING_STATES.has(shown) ? "worry" : "bad";
  const recycles = Object.entries(pool.recycles).map(([reason, number]) => `${number} ${reason}`).join(", ") || "none";
  const depth = pool.queue_depth === null ? "unknown number waiting" : `${pool.queue_depth} waiting`;
  const others = [...(pool.successor ? [`${pool.successor.slot} starts to take over from ${pool.slot}`] : []),
    ...pool.draining.map(({ slot, tasks }) => `${slot} drains: ${tasks.join(", ") || "no task any more"}`)];
  const children = [...pool.children].sort((one, other) => (one.task === null) - (other.task === null)
    || (other.task_seconds ?? 0) - (one.task_seconds ?? 0) || one.pid - other.pid);
  return element("article", { class: "pool" },
    element("div", { class: "pool-head" }, element("h3", {}, name), element("span", { class: `strong ${tone}` }, shown),
      element("span", {}, `${busy} of ${pool.concurrency} busy`), element("span", { class: "waiting strong" }, depth),
      element("span", { class: "faint" }, `queues ${pool.queues.join(", ")}`),
      element("span", { class: "faint" }, `${pool.max_tasks_per_child} tasks per child; recycles: ${recycles}`)),
    ...others.map((text) => element("p", { class: "worry" }, text)),
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
    ["browsers in use", browsers.in_use], ["kept", browsers.kept],
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
      `${event.done ? "" : "failed: "}${event.text}`)]);
  const found = [table("Since the governor’s start, newest first",
    [{ name: "when", kind: "moment" }, { name: "event", kind: "wide" }], rows)];
  if (recent.length > FIRST_EVENTS) {
    const button = element("button", {}, allRecent ? "Show fewer" : `Show all ${recent.length}`);
    button.addEventListener("click", () => { allRecent = !allRecent; showRecent(at, recent); });
    // The new button gets the focus of the one that it replaces.
    const hadFocus = place("recent").querySelector("button") === document.activeElement;
    place("recent").replaceChildren(...found, button);
    return hadFocus ? button.focus() : undefined;
  }
  return place("recent").replaceChildren(...found);
}

async function updateHistory() {
  const span = state.span, { timeline, problem } = await fetchJson(`/api/history?span=${span}`);
  if (span !== state.span) return 0;
  place("history-problem").hidden = !problem;
  place("history-problem").textContent = problem;
  for (const id of ["chart", "legend", "actions"]) place(id).hidden = !timeline;
  if (timeline && !isSelecting()) showHistory(timeline);
  return span === "15m" || span === "1h" ? HISTORY_MS : SLOW_HISTORY_MS;
}

function showHistory(timeline) {
  const container = state.now?.status.container;
  const figure = memoryFigure(timeline, [{ name: "limit", bytes: timeline.limit_bytes.at(-1) ?? 0 },
    ...(container ? [{ name: "hard", bytes: container.hard_bytes }, { name: "high", bytes: container.high_bytes }] : [])]);
  chart.show(figure);
  legend(place("legend"), figure);
  showSpans(timeline);
  place("actions-count").textContent = countActions(timeline);
  place("actions-table").replaceChildren(...actionsTable(timeline));
}

function showSpans({ kept_since, until }) {
  const kept = kept_since === null ? 0 : until - kept_since;
  SPANS.forEach(([name, , seconds], number) => {
    const button = place("spans").children[number];
    button.setAttribute("aria-pressed", String(name === state.span));
    // Disabled if it would show no more than the span before it.
    const before = number ? SPANS[number - 1][2] : 0;
    button.disabled = kept <= before && name !== state.span && seconds > 3600;
  });
}

async function updateLeaks() {
  const { at, report, problem } = await fetchJson("/api/leaks");
  const note = place("leaks-note");
  if (!report) {
    note.textContent = problem;
    return LEAKS_RETRY_MS;
  }
  if (isSelecting()) return LEAKS_RETRY_MS;
  const pools = report.pools.filter((pool) => pool.tasks.length);
  note.textContent = pools.length
    ? `Of runs from ${moment(report.since)} to ${moment(report.until)}; made ${moment(at)}. MiB per run: what one run `
      + "leaves in a child, ± the 95 % interval. N: how many such tasks a child has room for. Lost: children "
      + "recycled for it + OOM kills."
    : "No measured task has ended yet: there is nothing to report.";
  place("leaks").replaceChildren(...pools.flatMap(showLeaks));
  return LEAKS_MS;
}

const LEAK = [{ name: "task", kind: "title" }, { name: "shape", kind: "fixed" }, { name: "runs", kind: "number" },
  { name: "MiB per run", kind: "number" }, { name: "share", kind: "number" }, { name: "where", kind: "fixed" },
  { name: "N", kind: "number" }, { name: "lost", kind: "number" }, { name: "advice", kind: "wide" }];

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
  const button = element("button", { type: "button", "aria-pressed": String(name === state.span) }, text);
  button.addEventListener("click", () => { state.span = name; updateHistoryNow(); });
  return button;
}));
poll(updateStatus);
const updateHistoryNow = poll(updateHistory);
poll(updateLeaks);
setInterval(showSilence, 1000);
