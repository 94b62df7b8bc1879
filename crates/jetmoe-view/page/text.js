// The texts, token by token, and what is selected in them.

const state = {
  run: 0,
  tokens: RUNS.map(() => 0),
  mixture: MIXTURES.length - 1,
  layer: 0,
  expert: null,
  color: SAME_TOKENS ? "difference" : "experts",
  threshold: DATA.threshold,
};

const $ = (id) => document.getElementById(id);
const runName = (run) => (COMPARES ? `${LETTERS[run]}: ${RUNS[run].name}` : RUNS[run].name);
const tokenText = (run, token) => RUNS[run].tokens[token];
/** A text in quotes, for sentences, without spaces at its ends. */
const quoted = (run, token) => `“${tokenText(run, token).trim() || tokenText(run, token)}”`;

/** The runs whose selected tokens are drawn next to each other. */
const SHOWN_RUNS = RUNS.map((_, run) => run);

/** Elements of the tokens, by run. */
const tokenElements = [];

function buildTexts() {
  const shown = SAME_TOKENS ? [0] : RUNS.map((_, run) => run);
  $("texts").classList.toggle("paired", shown.length > 1);
  for (const run of shown) {
    const section = element("div", "run");
    const size = plural(RUNS[run].tokens.length, "token");
    const heading = element("h3", "", SAME_TOKENS ? `${size} of A and B` : COMPARES ? `${runName(run)}, ${size}` : size);
    const box = element("div", "token-box");
    box.id = `tokens-${run}`;
    box.tabIndex = 0;
    box.setAttribute("role", "listbox");
    box.setAttribute("aria-label", `Tokens of ${SAME_TOKENS ? "the text" : runName(run)}`);
    box.setAttribute("aria-describedby", "text-explanation");
    const starts = new Set(RUNS[run].starts);
    const elements = RUNS[run].tokens.map((text, token) => {
      const option = element("span", "token");
      option.id = `token-${run}-${token}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      option.append(element("span", "word", text === "" ? "·" : text), element("span", "mark"));
      return option;
    });
    elements.forEach((option, token) => {
      if (token > 0 && starts.has(token)) {
        const rule = element("hr");
        rule.setAttribute("role", "presentation");
        box.append(rule);
      }
      box.append(option);
      if (RUNS[run].breaks.has(token)) box.append(element("br"));
    });
    tokenElements[run] = elements;
    section.append(heading, box);
    $("texts").append(section);
    const at = (event) => {
      const option = event.target.closest(".token");
      return option && Number(option.id.split("-")[2]);
    };
    box.addEventListener("click", (event) => {
      const token = at(event);
      if (token !== null) select({ run: SAME_TOKENS ? state.run : run, token });
    });
    box.addEventListener("keydown", (event) => onTokenKey(event, run));
    box.addEventListener("focus", () => {
      if (!SAME_TOKENS && state.run !== run) select({ run });
    });
  }
}

/** Keys of a text: tokens sideways, layers up and down. */
function onTokenKey(event, run) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const last = RUNS[run].tokens.length - 1;
  const now = state.tokens[run];
  const moves = {
    ArrowLeft: { token: now - 1 },
    ArrowRight: { token: now + 1 },
    Home: { token: 0 },
    End: { token: last },
    PageUp: { token: now - 25 },
    PageDown: { token: now + 25 },
    ArrowUp: { layer: state.layer - 1 },
    ArrowDown: { layer: state.layer + 1 },
    m: { mixture: (state.mixture + 1) % MIXTURES.length },
  };
  const move = moves[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (move) {
    event.preventDefault();
    if (move.token !== undefined) move.token = Math.max(0, Math.min(last, move.token));
    if (move.layer !== undefined) move.layer = Math.max(0, Math.min(LAYERS - 1, move.layer));
    select({ run: SAME_TOKENS ? state.run : run, ...move });
  } else if (event.key.toLowerCase() === "d" && DIFFERENCES.length) {
    event.preventDefault();
    goToDifference(event.shiftKey ? -1 : 1);
  }
}

/** The mark below a token: text and colours, by what tokens are coloured by. */
function markOf(run, token) {
  const { mixture, layer, color, threshold } = state;
  const experts = MIXTURES[mixture].experts;
  const choices = chosen(run, mixture, layer, token);
  if (color === "margin") {
    const margin = marginOf(run, mixture, layer, token);
    const fill = ramp("orange", margin === undefined ? 0 : 1 - margin / (4 * threshold || 1));
    return { text: margin < threshold ? `${number(margin)} !` : number(margin), fill, ink: inkOn(fill) };
  }
  if (color === "entropy") {
    const entropy = entropyOf(run, mixture, layer, token);
    const fill = ramp("blue", entropy / Math.log(experts));
    return { text: number(entropy), fill, ink: inkOn(fill) };
  }
  if (color === "difference" && difference(mixture, layer, token) < 2) {
    return { text: "=", fill: "transparent", ink: theme("muted") };
  }
  const numbers = (list) => list.slice(0, 4).map((choice) => choice.expert).join("·");
  if (color === "difference") {
    const both = [0, 1].map((other) => numbers(chosen(other, mixture, layer, token)));
    const fill = ramp("orange", 0.5);
    return { text: `${both[0]}→${both[1]}`, fill, ink: inkOn(fill) };
  }
  const fill = expertColor(choices[0].expert, experts);
  return { text: numbers(choices), fill, ink: inkOn(fill) };
}

function paintTexts() {
  tokenElements.forEach((elements, shown) => {
    if (!elements) return;
    const run = SAME_TOKENS ? state.run : shown;
    elements.forEach((option, token) => {
      const mark = markOf(run, token);
      const last = option.lastChild;
      last.textContent = mark.text;
      last.style.background = mark.fill;
      last.style.color = mark.ink;
      const dim = state.expert !== null && !chooses(run, state.mixture, state.layer, token, state.expert);
      option.classList.toggle("dim", dim);
    });
  });
  $("text-legend").replaceChildren(...colorLegend());
  const below = {
    experts: "its experts, the one with the largest gate first",
    margin: "the margin of its choice, in logits",
    entropy: "the entropy of the router’s probabilities, in nats",
    difference: "its experts in A and in B where they differ, “=” where not",
  };
  const where = `${MIXTURES[state.mixture].name}, layer ${state.layer}`;
  $("text-explanation").textContent = `Below each token: ${below[state.color]} (${where}). Select a token to follow it through the layers.`;
}

/** Explains the colours of the text and of the overview. */
function colorLegend() {
  const { mixture, color, threshold } = state;
  const experts = MIXTURES[mixture].experts;
  if (color === "margin") return [legendRamp("orange", `${number(4 * threshold)} or more`, "0 (logits)"), element("li", "", "! below the limit")];
  if (color === "entropy") return [legendRamp("blue", "0", `${number(Math.log(experts))} nats: all equal`)];
  if (color === "difference") {
    const other = legendDrawing("other experts", (context) => {
      context.fillStyle = ramp("orange", 0.5);
      context.fillRect(1, 1, 14, 14);
      hatch(context, 1, 1, 14, 14, theme("ink"));
    });
    return [legendColor("the same experts", theme("grid")), other, legendColor("the same, another order", ramp("orange", 0.22))];
  }
  const items = [];
  for (let expert = 0; expert < Math.min(experts, 16); expert++) items.push(legendColor(`expert ${expert}`, expertColor(expert, experts)));
  if (experts > 16) items.push(element("li", "", `and ${experts - 16} more, by their numbers`));
  return items;
}

/** Marks the selected token and keeps it in view inside its box. */
function markSelection(before) {
  tokenElements.forEach((elements, shown) => {
    if (!elements) return;
    const box = $(`tokens-${shown}`);
    const token = state.tokens[SAME_TOKENS ? state.run : shown];
    const old = before && elements[before[shown]];
    if (old) old.setAttribute("aria-selected", "false");
    const option = elements[token];
    if (!option) return;
    option.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", option.id);
    // scrolls the box alone: scrollIntoView would move the page too
    const top = option.offsetTop - 8;
    const bottom = option.offsetTop + option.offsetHeight + 8;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  });
}

/** A sentence on the selected token, for the live region. */
function describe() {
  const { layer, mixture } = state;
  const runs = SAME_TOKENS ? [0, 1] : [state.run];
  const token = state.tokens[state.run];
  const head = `Token ${count(token + 1)} of ${count(RUNS[state.run].tokens.length)}, ${quoted(state.run, token)}, layer ${layer}. `;
  const one = (run, of) => {
    const list = chosen(run, of, layer, token).map(({ expert, gate }) => `${expert} (${percent(gate)})`);
    const margin = marginOf(run, of, layer, token);
    const note = margin < state.threshold ? ", which is small" : "";
    return `expert${list.length > 1 ? "s" : ""} ${list.join(" and ")}${margin === undefined || Number.isNaN(margin) ? "" : `, margin ${number(margin)}${note}`}`;
  };
  const order = [mixture, ...MIXTURES.keys()].filter((of, i, all) => all.indexOf(of) === i);
  const parts = order.map((of) => {
    const changed = SAME_TOKENS && difference(of, layer, token) === 2 ? " – different" : "";
    return `${MIXTURES[of].name}${changed}: ${runs.map((run) => `${SAME_TOKENS ? `${LETTERS[run]} ` : ""}${one(run, of)}`).join("; ")}.`;
  });
  return head + parts.join(" ");
}
