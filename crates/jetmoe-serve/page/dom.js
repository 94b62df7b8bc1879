// Elements of the page. Texts become text nodes: nothing of an answer or an error is markup.

export const $ = (id) => document.getElementById(id);

export function element(name, className = "", text = "") {
  const result = document.createElement(name);
  if (className !== "") result.className = className;
  if (text !== "") result.textContent = text;
  return result;
}

export const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const percents = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

/** A log-probability as a share. */
export const percent = (logprob) => percents.format(Math.exp(logprob));

/** A number with a unit, as in `1 token` and `2 tokens`. */
export const plural = (count, unit) => `${count.toLocaleString("en")} ${unit}${count === 1 ? "" : "s"}`;

/** A token's text with what cannot be seen made visible. */
export function visible(text) {
  if (text === null || text === undefined) return "(no text)";
  if (text === "") return "(empty)";
  return text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length));
}

/** Follows the end of an element that grows, unless its reader has scrolled up. */
export function followEnd(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}
