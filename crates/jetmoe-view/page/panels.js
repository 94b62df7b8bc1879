// The panels beside the text: path, router, overview, loads, tokens of an expert, differences.

const AXIS = 34;

function paintSelected() {
  const token = state.tokens[state.run];
  const run = RUNS[state.run];
  const word = element("span", "word", tokenText(state.run, token).replaceAll(" ", "␣"));
  const sequence = run.starts.filter((start) => start <= token).length;
  const where = run.starts.length > 1 ? `sequence ${sequence}, token ${count(token - run.starts[sequence - 1] + 1)}` : `token ${count(token + 1)} of ${count(run.tokens.length)}`;
  const facts = [where, `id ${run.ids[token]}`];
  if (COMPARES && !SAME_TOKENS) facts.unshift(runName(state.run));
  $("selected-token").replaceChildren(word, element("span", "place", facts.join(" · ")));
}

/** Experts by layers for the selected token, one canvas for each mixture. */
function paintPaths() {
  const width = $("paths").clientWidth;
  const token = state.tokens[state.run];
  MIXTURES.forEach((mixture, index) => {
    const canvas = $(`path-${index}`);
    const cell = (width - AXIS) / LAYERS;
    const row = Math.max(9, Math.min(20, 200 / mixture.experts));
    const [top, bottom] = [18, 16];
    const context = prepare(canvas, width, top + bottom + row * mixture.experts);
    const x = (layer) => AXIS + (layer + 0.5) * cell;
    const y = (expert) => top + (expert + 0.5) * row;
    context.fillStyle = theme("accent-soft");
    context.fillRect(AXIS + state.layer * cell, 0, cell, top + row * mixture.experts);
    if (state.expert !== null && index === state.mixture) context.fillRect(AXIS, top + state.expert * row, width, row);
    context.strokeStyle = theme("grid");
    context.lineWidth = 1;
    for (let expert = 0; expert < mixture.experts; expert++) {
      context.beginPath();
      context.moveTo(AXIS, y(expert));
      context.lineTo(width, y(expert));
      context.stroke();
    }
    context.fillStyle = theme("muted");
    context.textAlign = "right";
    const rows = labelStep(row, 12);
    for (let expert = 0; expert < mixture.experts; expert += rows) context.fillText(expert, AXIS - 8, y(expert));
    context.textAlign = "center";
    const columns = labelStep(cell, 20);
    for (let layer = 0; layer < LAYERS; layer += columns) context.fillText(layer, x(layer), 9);
    for (const run of SHOWN_RUNS) {
      const color = theme(run === 0 ? "a" : "b");
      context.strokeStyle = color;
      context.globalAlpha = 0.5;
      context.lineWidth = 1.5;
      context.setLineDash(run === 0 ? [] : [5, 3]);
      context.beginPath();
      for (let layer = 0; layer < LAYERS; layer++) context.lineTo(x(layer), y(chosen(run, index, layer, state.tokens[run])[0].expert));
      context.stroke();
      context.setLineDash([]);
      context.globalAlpha = 1;
      const most = Math.max(2, Math.min(cell, row) / 2 - 1) - (run === 0 ? 0 : 0.5);
      for (let layer = 0; layer < LAYERS; layer++)
        for (const { expert, gate } of chosen(run, index, layer, state.tokens[run]))
          drawMark(context, run, x(layer), y(expert), most * (0.4 + 0.6 * Math.sqrt(gate)), color);
    }
    const floor = top + row * mixture.experts + 8;
    for (let layer = 0; layer < LAYERS; layer++) {
      const changed = SAME_TOKENS && difference(index, layer, token) === 2;
      if (changed) {
        context.fillStyle = theme("warn");
        context.font = "bold 13px system-ui, sans-serif";
        context.fillText("≠", x(layer), floor);
      } else if (marginOf(state.run, index, layer, token) < state.threshold) {
        drawTriangle(context, x(layer), floor, Math.min(4, cell / 3), theme("warn"));
      }
    }
    canvas.setAttribute("aria-label", pathLabel(index, token));
  });
  const marks = !COMPARES ? [] : SHOWN_RUNS.map((run) => {
    const label = SAME_TOKENS ? runName(run) : `${LETTERS[run]}: ${tokenText(run, state.tokens[run]).replaceAll(" ", "␣")}`;
    return legendDrawing(label, (context) => drawMark(context, run, 8, 8, 5, theme(run === 0 ? "a" : "b")));
  });
  marks.push(legendDrawing(`margin below ${state.threshold}${COMPARES ? ` in ${LETTERS[state.run]}` : ""}`, (context) => drawTriangle(context, 8, 8, 4, theme("warn"))));
  if (SAME_TOKENS) marks.push(element("li", "", "≠ other experts in A and B"));
  $("path-legend").replaceChildren(...marks);
}

function pathLabel(mixture, token) {
  const layers = Array.from({ length: LAYERS }, (_, layer) => chosen(state.run, mixture, layer, token)[0].expert);
  return `First expert of ${quoted(state.run, token)} in the ${MIXTURES[mixture].name} mixture, layers 0 to ${LAYERS - 1}: ${layers.join(", ")}`;
}

function onPathClick(event, mixture) {
  const { offsetX, offsetY } = event;
  const row = Math.max(9, Math.min(20, 200 / MIXTURES[mixture].experts));
  const layer = Math.floor((offsetX - AXIS) / (($("paths").clientWidth - AXIS) / LAYERS));
  const expert = Math.floor((offsetY - 18) / row);
  if (layer < 0 || layer >= LAYERS) return;
  select({ mixture, layer, expert: expert >= 0 && expert < MIXTURES[mixture].experts ? expert : state.expert });
}

/** The selected token in every layer, while the table is open. */
function paintTokenTable() {
  if (!$("token-details").open) return;
  const head = element("tr");
  head.append(element("th", "", "Layer"));
  for (const mixture of MIXTURES)
    for (const run of SHOWN_RUNS) head.append(element("th", "", `${mixture.name}${COMPARES ? ` ${LETTERS[run]}` : ""}`), element("th", "", "margin"));
  const rows = Array.from({ length: LAYERS }, (_, layer) => {
    const row = element("tr", layer === state.layer ? "current" : "");
    row.append(element("th", "", layer));
    MIXTURES.forEach((_, mixture) => {
      for (const run of SHOWN_RUNS) {
        const token = state.tokens[run];
        const text = chosen(run, mixture, layer, token).map(({ expert, gate }) => `${expert} (${percent(gate)})`).join(", ");
        const changed = SAME_TOKENS && difference(mixture, layer, token) === 2 ? " ≠" : "";
        row.append(element("td", "", text + changed), element("td", "", number(marginOf(run, mixture, layer, token))));
      }
    });
    return row;
  });
  $("token-table").replaceChildren(head, ...rows);
}

/** Probabilities of all experts for the selected token. */
function paintRouter() {
  const { layer, mixture } = state;
  const parts = SHOWN_RUNS.flatMap((run) => {
    const token = state.tokens[run];
    const routing = RUNS[run].routing[mixture];
    const experts = MIXTURES[mixture].experts;
    const list = chosen(run, mixture, layer, token);
    const title = element("p", "router-title", `${COMPARES ? `${runName(run)}, ` : ""}${MIXTURES[mixture].name}, layer ${layer}`);
    const margin = marginOf(run, mixture, layer, token);
    const facts = element("p", "router-facts");
    const value = element("span", margin < state.threshold ? "warning" : "", `margin ${number(margin)}${margin < state.threshold ? " (small)" : ""}`);
    facts.append(value, ` · entropy ${number(entropyOf(run, mixture, layer, token))} of ${number(Math.log(experts))} nats`);
    const bars = element("div", "bars");
    const order = routing.probabilities ? Array.from({ length: experts }, (_, expert) => expert) : list.map(({ expert }) => expert);
    for (const expert of order) {
      const choice = list.find((other) => other.expert === expert);
      const share = routing.probabilities ? routing.probabilities[place(run, layer, token) * experts + expert] / 255 : choice.gate;
      const track = element("span", "track");
      const fill = element("span", "fill");
      fill.style.width = `${100 * share}%`;
      fill.style.background = choice ? theme(run === 0 ? "a" : "b") : theme("muted");
      track.append(fill);
      bars.append(element("span", choice ? "name chosen" : "name", `${choice ? "✓ " : ""}expert ${expert}`), track, element("span", "", choice ? `${percent(share)} · gate ${percent(choice.gate)}` : percent(share)));
    }
    return [title, bars, facts];
  });
  $("router").replaceChildren(...parts);
}

/** Loads as one table for each mixture: a grid with one stop of the tab key. */
function paintLoads() {
  const run = state.run;
  const most = MIXTURES.map((_, mixture) => Math.max(...Array.from({ length: LAYERS }, (_, layer) => Math.max(...loads(run, mixture, layer)))));
  const scale = Math.max(...most) / RUNS[run].tokens.length;
  const between = state.loads === "difference";
  $("loads").replaceChildren(...MIXTURES.map((mixture, index) => {
    const part = element("div");
    const balance = RUNS[run].routing[index].balance;
    part.append(element("h3", "", `${mixture.name}${balance === null || between ? "" : `, balance loss ${number(balance)} (${mixture.perToken} if balanced)`}`));
    const table = element("table", "load-table");
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", `Load of the ${mixture.name} experts, layers by experts`);
    table.tabIndex = 0;
    table.id = `load-${index}`;
    const head = element("tr");
    head.append(element("th", "corner", "layer"));
    for (let expert = 0; expert < mixture.experts; expert++) head.append(element("th", "", expert));
    table.createTHead().append(head);
    const body = table.createTBody();
    for (let layer = 0; layer < LAYERS; layer++) {
      const row = element("tr", layer === state.layer ? "current" : "");
      row.append(element("th", "", layer));
      const shares = RUNS.map((other, which) => loads(which, index, layer).map((load) => load / other.tokens.length));
      shares[run].forEach((share, expert) => {
        const cell = element("td");
        const label = element("span", "cell");
        const change = between ? shares[1][expert] - shares[0][expert] : 0;
        const fill = between ? ramp("difference", 0.5 + change * 2) : ramp("blue", share / scale);
        label.textContent = between ? `${change > 0 ? "+" : change < 0 ? "−" : ""}${Math.abs(100 * change).toFixed(0)}` : (100 * share).toFixed(0);
        label.title = between ? `layer ${layer}, expert ${expert}: ${percent(shares[0][expert])} in A, ${percent(shares[1][expert])} in B` : `layer ${layer}, expert ${expert}: ${plural(Math.round(share * RUNS[run].tokens.length), "token")}, ${percent(share)}`;
        label.style.background = fill;
        label.style.color = inkOn(fill);
        cell.id = `load-${index}-${layer}-${expert}`;
        const current = index === state.mixture && layer === state.layer && expert === state.expert;
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("aria-selected", current);
        label.classList.toggle("current", current);
        if (current) table.setAttribute("aria-activedescendant", cell.id);
        cell.append(label);
        row.append(cell);
      });
      body.append(row);
    }
    part.append(table);
    return part;
  }));
  const even = percent(MIXTURES[state.mixture].perToken / MIXTURES[state.mixture].experts);
  $("load-legend").replaceChildren(between ? legendRamp("difference", "−25 points: fewer in B", "more in B: +25 points") : legendRamp("blue", "0 %", `${percent(scale)} of the tokens`), element("li", "", `${even} if all experts of a layer are equally loaded`));
}

function onLoadKey(event) {
  const table = event.target.closest(".load-table");
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  const step = steps[event.key];
  if (!table || !step) return;
  event.preventDefault();
  const mixture = Number(table.id.split("-")[1]);
  const { experts } = MIXTURES[mixture];
  const from = mixture === state.mixture && state.expert !== null ? state.expert : -step[1];
  const expert = Math.max(0, Math.min(experts - 1, from + step[1]));
  select({ mixture, layer: Math.max(0, Math.min(LAYERS - 1, state.layer + step[0])), expert });
  $(table.id).focus();
}

/** The most frequent texts among the tokens of the selected expert. */
function paintTokenList() {
  const { run, mixture, layer, expert } = state;
  const of = `${MIXTURES[mixture].name}, layer ${layer}`;
  if (expert === null) {
    $("tokens-explanation").textContent = `Choose an expert above, in the path or in the load, to list the tokens that take it (${of}).`;
    $("token-list").replaceChildren();
    $("token-rest").textContent = "";
    return;
  }
  const groups = new Map();
  let total = 0;
  RUNS[run].tokens.forEach((text, token) => {
    const choice = chosen(run, mixture, layer, token).find((other) => other.expert === expert);
    if (!choice) return;
    total++;
    const group = groups.get(RUNS[run].ids[token]) || { text, places: [], gates: 0 };
    group.places.push(token);
    group.gates += choice.gate;
    groups.set(RUNS[run].ids[token], group);
  });
  const list = [...groups.values()].sort((a, b) => b.places.length - a.places.length || a.places[0] - b.places[0]);
  $("tokens-explanation").textContent = `Expert ${expert} of ${of}${COMPARES ? `, ${runName(run)}` : ""}: ${plural(total, "token")} of ${count(RUNS[run].tokens.length)}, most frequent first, with how often and the mean gate. Choose one to go to its next place.`;
  const most = 120;
  $("token-list").replaceChildren(...list.slice(0, most).map((group) => {
    const item = element("li");
    const button = element("button", "", group.text);
    button.type = "button";
    button.append(element("span", "count", `${count(group.places.length)} × ${percent(group.gates / group.places.length)}`));
    button.addEventListener("click", () => {
      const next = group.places.find((token) => token > state.tokens[run]);
      select({ token: next ?? group.places[0] });
    });
    item.append(button);
    return item;
  }));
  $("token-rest").textContent = list.length > most ? `${plural(list.length - most, "rarer text")} left out.` : "";
}
