// The panels of the selected token: how probable it was, which others were, and which experts it took.

import { $, element, percent, plural, theme, visible } from "./dom.js";
import { describe, drawMap, expertColor, expertsIn, inkOn, loads, MIXTURES, tokenAt } from "./experts.js";
import { spoken } from "./turn.js";

/** The turn that is shown, and the index of the first token of its selected piece. */
let shown = { turn: null, token: -1 };

/** Shows a piece of a turn. */
export function inspect(turn, index) {
  const { pieces, tokens } = turn.answer;
  const piece = pieces[index];
  const first = pieces.slice(0, index).reduce((sum, other) => sum + other.tokens.length, 0);
  if (shown.turn !== turn) shown.turn?.unselect();
  shown = { turn, token: first };
  const experts = expertsIn(tokens);
  $("token-detail").replaceChildren(...piece.tokens.map((token) => detail(token, experts)));
  if (piece.tokens.length === 0) $("token-detail").replaceChildren(element("p", "help", "The server reported no token for this text."));
  const place = `Token ${first + 1} of ${tokens.length}`;
  const parts = piece.tokens.map((token) => spoken(token) + (token.experts ? `; experts: ${describe(token.experts)}` : ""));
  $("token-live").textContent = [place, ...parts].join(". ");
  drawExperts();
}

/** Removes what belongs to turns that are gone. */
export function clearInspector() {
  shown = { turn: null, token: -1 };
  for (const id of ["token-detail", "token-live"]) $(id).replaceChildren();
  $("experts-panel").hidden = true;
}

function detail(token, experts) {
  const part = element("div", "detail");
  const title = element("p", "chosen");
  title.append(element("span", "word", visible(token.text)));
  if (typeof token.logprob === "number") title.append(element("span", "place", `${percent(token.logprob)}, log-probability ${token.logprob.toFixed(3)}`));
  part.append(title);
  if (token.best.length > 0) part.append(bars(token));
  if (token.experts?.length > 0) part.append(expertTable(token.experts, experts));
  return part;
}

/** The most probable tokens in its place. */
function bars(token) {
  const list = element("ol", "bars");
  list.setAttribute("aria-label", "Most probable tokens here");
  for (const other of token.best) {
    const row = element("li", other.token === token.text ? "same" : "");
    const fill = element("span", "fill");
    fill.style.width = `${Math.exp(other.logprob) * 100}%`;
    const track = element("span", "track");
    track.append(fill);
    row.append(element("span", "name", visible(other.token)), track, element("span", "share", percent(other.logprob)));
    list.append(row);
  }
  return list;
}

/** The experts of one token: a row for each layer. */
function expertTable(layers, experts) {
  const table = element("table", "experts-of-token");
  table.append(element("caption", "", "Experts by layer"), rowOf("th", ["layer", ...MIXTURES].map((name) => element("span", "", name))));
  layers.forEach((mixtures, layer) => {
    const cells = mixtures.map((list) => {
      const cell = element("span", "chips");
      cell.append(...list.map((expert) => chip(expert, experts)));
      return cell;
    });
    table.append(rowOf("td", [element("span", "", String(layer)), ...cells]));
  });
  return table;
}

function rowOf(cell, contents) {
  const row = element("tr");
  for (const content of contents) {
    const part = element(cell);
    part.append(content);
    row.append(part);
  }
  return row;
}

function chip(expert, experts) {
  const part = element("span", "chip", String(expert));
  part.style.background = expertColor(expert, experts);
  part.style.color = inkOn(expertColor(expert, experts));
  return part;
}

/** The map of the answer that is shown, as far as it has come. */
export function drawExperts() {
  const tokens = shown.turn?.answer.tokens ?? [];
  const experts = expertsIn(tokens);
  $("experts-panel").hidden = experts === 0;
  if (experts === 0) return;
  $("experts-explanation").textContent = "Columns are tokens, rows are layers. A cell has the number and colour of the expert with the largest weight, and below it the colours of the others: those of the step that produced the token. Click a column to select its token.";
  drawMap($("experts-map"), tokens, shown.token, theme);
  $("experts-legend").replaceChildren(...Array.from({ length: experts }, (_, expert) => {
    const item = element("li");
    item.append(chip(expert, experts), ` expert ${expert}`);
    return item;
  }));
  drawLoads(tokens, experts);
}

function drawLoads(tokens, experts) {
  const head = ["", ...Array.from({ length: experts }, (_, expert) => `expert ${expert}`)];
  const rows = loads(tokens, experts).flatMap((layer, l) => layer.map((counts, m) => rowOf("td", [`layer ${l}, ${MIXTURES[m]}`, ...counts.map(String)])));
  $("experts-table").replaceChildren(element("caption", "", `Of ${plural(tokens.length, "token")}`), rowOf("th", head), ...rows);
}

/** Shows the turn while it grows. */
export function follow(turn) {
  shown.turn?.unselect();
  shown = { turn, token: -1 };
}

$("experts-map").addEventListener("click", (event) => {
  const token = tokenAt(shown.turn?.answer.tokens ?? [], event.offsetX);
  if (token === null) return;
  let first = 0;
  const piece = shown.turn.answer.pieces.findIndex((other) => (first += other.tokens.length) > token);
  if (piece >= 0) shown.turn.select(piece);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawExperts);
