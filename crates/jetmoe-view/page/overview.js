// All tokens by layer, and the differences between two runs.

const overview = { cell: 4, row: 11, top: 18 };

/** Lays the overview out; the canvas is as wide as its window, and drawn again when that scrolls. */
function layOutOverview() {
  const scroller = $("overview-scroller");
  const tokens = RUNS[state.run].tokens.length;
  overview.cell = Math.max(3, Math.min(16, (scroller.clientWidth - AXIS) / tokens));
  overview.row = Math.max(6, Math.min(14, 300 / LAYERS));
  $("overview-extent").style.width = `${AXIS + tokens * overview.cell}px`;
}

function overviewCell(token, layer) {
  const { run, mixture, color, threshold } = state;
  const { experts } = MIXTURES[mixture];
  if (color === "margin") return ramp("orange", 1 - (marginOf(run, mixture, layer, token) ?? Infinity) / (4 * threshold || 1));
  if (color === "entropy") return ramp("blue", entropyOf(run, mixture, layer, token) / Math.log(experts));
  if (color === "difference") return [theme("grid"), ramp("orange", 0.22), ramp("orange", 0.5)][difference(mixture, layer, token)];
  return expertColor(chosen(run, mixture, layer, token)[0].expert, experts);
}

function paintOverview() {
  const scroller = $("overview-scroller");
  const { cell, row, top } = overview;
  const { run, mixture, color } = state;
  const tokens = RUNS[run].tokens.length;
  const width = scroller.clientWidth;
  const context = prepare($("overview"), width, top + row * LAYERS + 2);
  const first = Math.floor(scroller.scrollLeft / cell);
  const last = Math.min(tokens, Math.ceil((scroller.scrollLeft + width - AXIS) / cell));
  const x = (token) => AXIS + token * cell - scroller.scrollLeft;
  const gap = cell >= 6 ? 1 : 0;
  const ink = theme("ink");
  const expert = state.expert;
  context.save();
  context.beginPath();
  context.rect(AXIS, 0, width - AXIS, top + row * LAYERS + 2);
  context.clip();
  for (let token = first; token < last; token++) {
    for (let layer = 0; layer < LAYERS; layer++) {
      context.globalAlpha = expert !== null && !chooses(run, mixture, layer, token, expert) ? 0.14 : 1;
      context.fillStyle = overviewCell(token, layer);
      context.fillRect(x(token), top + layer * row, cell - gap + (gap ? 0 : 0.3), row - 1);
      if (color === "difference" && cell >= 6 && difference(mixture, layer, token) === 2) hatch(context, x(token), top + layer * row, cell - gap, row - 1, ink);
    }
  }
  context.globalAlpha = 1;
  context.textAlign = "center";
  context.fillStyle = theme("muted");
  const step = labelStep(cell, 44);
  for (let label = Math.max(1, Math.ceil(first / step)) * step; label <= last; label += step) context.fillText(label, x(label - 1) + cell / 2, 9);
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.strokeRect(x(state.tokens[run]) - 1, top - 1, cell + 2 - gap, row * LAYERS + 1);
  context.strokeRect(AXIS, top + state.layer * row - 1, width, row + 1);
  context.restore();
  context.textAlign = "right";
  context.fillStyle = theme("muted");
  const rows = labelStep(row, 13);
  for (let layer = 0; layer < LAYERS; layer += rows) context.fillText(layer, AXIS - 8, top + (layer + 0.5) * row);
  const what = $("color").selectedOptions[0].textContent;
  $("overview").setAttribute("aria-label", `${plural(tokens, "token")} by ${plural(LAYERS, "layer")}, ${MIXTURES[mixture].name} mixture, coloured by ${what}. The text panel gives every value.`);
  $("overview-explanation").textContent = `Columns are tokens, rows are layers; ${MIXTURES[mixture].name} mixture${COMPARES ? `, ${runName(run)}` : ""}, coloured by ${what}.${expert === null ? "" : ` Only choices of expert ${expert} in full colour.`} Click a cell to select token and layer.`;
  $("overview-legend").replaceChildren(...colorLegend());
}

function onOverviewClick(event) {
  const token = Math.floor((event.offsetX - AXIS + $("overview-scroller").scrollLeft) / overview.cell);
  const layer = Math.floor((event.offsetY - overview.top) / overview.row);
  if (token >= 0 && token < RUNS[state.run].tokens.length && layer >= 0 && layer < LAYERS) select({ token, layer });
}

/** Brings the selected token into view after it was selected elsewhere. */
function followOverview() {
  const scroller = $("overview-scroller");
  const at = state.tokens[state.run] * overview.cell;
  const visible = scroller.clientWidth - AXIS - overview.cell;
  if (at < scroller.scrollLeft || at > scroller.scrollLeft + visible) scroller.scrollLeft = at - visible / 2;
}

function buildDifferences() {
  if (!COMPARES) return;
  $("differences-panel").hidden = false;
  const tokens = RUNS[0].tokens.length;
  if (!SAME_TOKENS) {
    $("differences-heading").textContent = "Two texts";
    $("differences-explanation").textContent = "Path and router show the selected token of either text; the other panels show the run that is chosen above. The load can show the difference between both.";
    for (const id of ["differences-chart", "difference-buttons"]) $(id).hidden = true;
    const figures = MIXTURES.map((mixture, index) => figure(percent(meanDistance(index)), `of ${mixture.name} assignments, at least, go to other experts; mean of all layers`));
    $("differences-summary").replaceChildren(...figures);
    return;
  }
  const places = tokens * LAYERS * MIXTURES.length;
  const touched = new Set(DIFFERENCES.map(({ token }) => token)).size;
  $("differences-explanation").textContent = `The same text in A and B. A difference is a token that takes another set of experts in one layer and mixture; ${count(places)} choices were compared. The bars are the share of tokens that differ, by layer.`;
  const small = DIFFERENCES.filter(({ mixture, layer, token }) => marginOf(0, mixture, layer, token) < state.threshold).length;
  const summary = [figure(percent(DIFFERENCES.length / places), `${plural(DIFFERENCES.length, "choice")} differ`)];
  summary.push(figure(`${count(touched)} of ${count(tokens)}`, "tokens differ in one layer or more"));
  if (DIFFERENCES.length) summary.push(figure(percent(small / DIFFERENCES.length), `of the differences had a margin below ${state.threshold} in A`));
  $("differences-summary").replaceChildren(...summary);
  for (const id of ["previous-difference", "next-difference"]) $(id).disabled = DIFFERENCES.length === 0;
  paintDifferences();
}

function figure(value, unit) {
  const part = element("div");
  part.append(element("span", "figure", value), element("span", "unit", unit));
  return part;
}

function meanDistance(mixture) {
  let sum = 0;
  for (let layer = 0; layer < LAYERS; layer++) {
    const [a, b] = RUNS.map((run, which) => loads(which, mixture, layer).map((load) => load / (run.tokens.length * MIXTURES[mixture].perToken)));
    sum += a.reduce((total, share, expert) => total + Math.abs(share - b[expert]), 0) / 2;
  }
  return sum / LAYERS;
}

/** Share of tokens that differ, one pair of bars for each layer. */
function paintDifferences() {
  if (!SAME_TOKENS) return;
  const tokens = RUNS[0].tokens.length;
  const shares = MIXTURES.map(() => new Array(LAYERS).fill(0));
  for (const { mixture, layer } of DIFFERENCES) shares[mixture][layer] += 1 / tokens;
  const most = Math.max(0.001, ...shares.flat());
  const width = $("differences-panel").clientWidth - 36;
  const [left, top, floor] = [44, 8, 96];
  const context = prepare($("differences-chart"), width, 120);
  const group = (width - left) / LAYERS;
  context.textAlign = "right";
  for (const part of [0, 0.5, 1]) {
    const y = floor - part * (floor - top);
    context.fillStyle = theme("muted");
    context.fillText(percent(part * most), left - 8, y);
    context.fillStyle = theme("line");
    context.fillRect(left, y, width, 1);
  }
  context.textAlign = "center";
  const step = labelStep(group, 22);
  for (let layer = 0; layer < LAYERS; layer++) {
    const bar = Math.max(1, Math.min(14, group * 0.8 / MIXTURES.length));
    shares.forEach((list, mixture) => {
      const height = (list[layer] / most) * (floor - top);
      const x = left + (layer + 0.5) * group + (mixture - MIXTURES.length / 2) * bar;
      context.fillStyle = theme(mixture === 0 ? "muted" : "b");
      context.fillRect(x, floor - height, bar - 1, height);
      if (mixture === 0 && bar >= 5) hatch(context, x, floor - height, bar - 1, height, theme("panel"));
    });
    context.fillStyle = theme("muted");
    if (layer % step === 0) context.fillText(layer, left + (layer + 0.5) * group, floor + 14);
  }
  const text = shares.map((list, mixture) => `${MIXTURES[mixture].name}: ${list.map((share) => percent(share)).join(", ")}`);
  $("differences-chart").setAttribute("aria-label", `Share of tokens that take other experts, by layer. ${text.join(". ")}`);
  const names = MIXTURES.map((mixture, index) => legendDrawing(mixture.name, (context) => {
    context.fillStyle = theme(index === 0 ? "muted" : "b");
    context.fillRect(1, 1, 14, 14);
    if (index === 0) hatch(context, 1, 1, 14, 14, theme("panel"));
  }));
  $("differences-legend").replaceChildren(...names, element("li", "", "layer →"));
}

/** Selects the difference after or before the selected place. */
function goToDifference(direction) {
  const key = ({ token, layer, mixture }) => (token * LAYERS + layer) * MIXTURES.length + mixture;
  const now = key({ token: state.tokens[state.run], layer: state.layer, mixture: state.mixture });
  let index = direction > 0 ? DIFFERENCES.findIndex((other) => key(other) > now) : DIFFERENCES.findLastIndex((other) => key(other) < now);
  if (index < 0) index = direction > 0 ? 0 : DIFFERENCES.length - 1;
  select({ ...DIFFERENCES[index] });
  $("difference-position").textContent = `${count(index + 1)} of ${count(DIFFERENCES.length)}`;
}
