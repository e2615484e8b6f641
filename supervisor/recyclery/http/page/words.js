// Formats numbers and times, and creates elements from plain text: no text becomes markup.

export const MIB = 1 << 20;
const KIB = 1024, GIB = 1024 * MIB;
const MINUTE = 60, HOUR = 3600, DAY = 86400;

const trimmed = (number, places) => number.toFixed(places).replace(/\.?0+$/, "");

export function size(bytes) {
  if (bytes < 0) return `−${size(-bytes)}`;
  if (bytes >= GIB) return `${trimmed(bytes / GIB, 2)} GiB`;
  if (bytes >= MIB) return `${Math.round(bytes / MIB)} MiB`;
  return bytes ? `${Math.round(bytes / KIB)} KiB` : "0";
}

// Three significant digits, or all digits before the point.
export const short = (number) => (Math.abs(number) >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3))));

// MiB with as many digits as a small growth needs.
export function mebibytes(bytes) {
  const number = Math.abs(bytes / MIB) < 0.005 ? 0 : bytes / MIB;
  return (number < 0 ? "−" : "") + Math.abs(number).toFixed(Math.abs(number) >= 100 ? 0 : Math.abs(number) >= 9.95 ? 1 : 2);
}

export function age(seconds) {
  const whole = Math.floor(seconds), two = (number) => String(number).padStart(2, "0");
  if (whole < 100) return `${whole}s`;
  if (whole < 100 * MINUTE) return `${Math.floor(whole / MINUTE)}m${two(whole % MINUTE)}s`;
  if (whole < 2 * DAY) return `${Math.floor(whole / HOUR)}h${two(Math.floor((whole % HOUR) / MINUTE))}m`;
  return `${Math.floor(whole / DAY)}d${two(Math.floor((whole % DAY) / HOUR))}h`;
}

const times = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const exactTimes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short" });

export const clock = (seconds) => times.format(seconds * 1000);
export const day = (seconds) => days.format(seconds * 1000);
export const moment = (seconds) => `${day(seconds)}, ${exactTimes.format(seconds * 1000)}`;

export function zone() {
  const minutes = -new Date().getTimezoneOffset(), away = Math.abs(minutes);
  if (!minutes) return "UTC";
  const rest = away % 60 ? `:${String(away % 60).padStart(2, "0")}` : "";
  return `UTC${minutes > 0 ? "+" : "−"}${Math.floor(away / 60)}${rest}`;
}

export function element(name, attributes = {}, ...content) {
  return fill(document.createElement(name), attributes, content);
}

export function drawn(name, attributes = {}, ...content) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, content);
}

function fill(made, attributes, content) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...content);
  return made;
}
