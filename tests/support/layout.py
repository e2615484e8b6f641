"""What a browser says of a page: its layout, by scripts for it, and what stands in its console."""

from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options

# Every two texts that are drawn one over the other.
OVERLAPS = """
const boxes = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, parent = node.parentElement;
  if (!node.data.trim() || !parent.checkVisibility({ visibilityProperty: true })) continue;
  if (parent.closest("script, style, noscript, .modebar")) continue;
  // What is there for those who listen alone.
  const hidden = parent.closest("thead");
  if (hidden && getComputedStyle(hidden).position === "absolute") continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects())
    if (box.width > 1 && box.height > 1) boxes.push({ box, node, text: node.data.trim().slice(0, 40) });
}
const found = [];
boxes.forEach((one, place) => {
  for (const other of boxes.slice(place + 1)) {
    const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
    const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
    // Lines of a text may touch.
    if (one.node !== other.node && across > 2 && down > 4) found.push(`${one.text} | ${other.text}`);
  }
});
return found;
"""

# Every text with less contrast to what is behind it than WCAG's AA asks for.
FAINT_TEXTS = """
const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
const light = (colour) => {
  const [red, green, blue] = parse(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if ((parse(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || !element.checkVisibility() || element.closest("script, style, noscript, :disabled")) continue;
  const style = getComputedStyle(element);
  const [first, second] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
  const contrast = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
  if (contrast < 4.5) found.push(`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(1)}`);
}
return found;
"""

# Everything of which a part can only be seen by scrolling sideways.
SIDEWAYS = """
return [document.documentElement, ...document.body.querySelectorAll("*")]
  .filter((element) => element.clientWidth > 1 && element.scrollWidth > element.clientWidth + 1)
  .filter((each) => each === document.documentElement || getComputedStyle(each).overflowX !== "visible")
  .map((element) => `${element.tagName} ${element.className} ${element.scrollWidth}`);
"""


def dress(driver: webdriver.Chrome, width: int, scheme: str) -> None:
    """Give a browser's window a width, and its user a taste: light or dark."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    taste = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": taste})


def watched_options(*arguments: str) -> Options:
    """Return the options of a browser that keeps all that its console says."""
    options = Options()
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return options


def complaints(driver: webdriver.Chrome) -> list[Any]:
    """Return what stands in the console since the last time."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]
