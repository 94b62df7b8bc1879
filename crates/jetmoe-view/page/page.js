// Puts the panels together: the choices on top, one function that changes the selection, and what is painted after it.

/** Changes the selection and paints what depends on it. */
function select(change) {
  const before = { ...state, tokens: [...state.tokens] };
  if (change.run !== undefined) state.run = change.run;
  if (change.token !== undefined) {
    if (SAME_TOKENS) state.tokens.fill(change.token);
    else state.tokens[state.run] = change.token;
  }
  for (const name of ["mixture", "layer", "expert", "color", "threshold", "loads"]) if (change[name] !== undefined) state[name] = change[name];
  if (state.expert !== null && state.expert >= MIXTURES[state.mixture].experts) state.expert = null;
  showChoices();
  const changed = (...names) => names.some((name) => before[name] !== state[name]);
  if (changed("run", "mixture", "layer", "expert", "color", "threshold")) paintTexts();
  markSelection(before.tokens);
  paintSelected();
  paintPaths();
  paintTokenTable();
  paintRouter();
  if (changed("run", "mixture", "layer", "expert", "loads")) {
    paintLoads();
    paintTokenList();
  }
  if (changed("threshold")) buildDifferences();
  if (before.run !== state.run) layOutOverview();
  followOverview();
  paintOverview();
  $("live").textContent = describe();
}

function paintAll() {
  layOutOverview();
  paintTexts();
  markSelection(null);
  paintSelected();
  paintPaths();
  paintTokenTable();
  paintRouter();
  paintOverview();
  paintLoads();
  paintTokenList();
  paintDifferences();
}

/** A row of buttons of which one is pressed. */
function segments(parent, labels, onChoose) {
  const row = element("div", "segments");
  labels.forEach((label, index) => {
    const button = element("button", "", label);
    button.type = "button";
    button.addEventListener("click", () => onChoose(index));
    row.append(button);
  });
  parent.append(row);
  return (pressed) => [...row.children].forEach((button, index) => button.setAttribute("aria-pressed", index === pressed));
}

function option(select, value, label) {
  const result = element("option", "", label);
  result.value = value;
  select.append(result);
}

const presses = [];

function buildChoices() {
  if (COMPARES) {
    const choice = element("fieldset", "choice");
    choice.append(element("legend", "", "Run"));
    $("mixture-choice").before(choice);
    const press = segments(choice, RUNS.map((_, run) => runName(run)), (run) => select({ run }));
    presses.push(() => press(state.run));
    const load = element("fieldset", "choice");
    load.append(element("legend", "", "Load of"));
    $("loads").before(load);
    const pressLoad = segments(load, ["the chosen run", "B less A"], (index) => select({ loads: index ? "difference" : "run" }));
    presses.push(() => pressLoad(state.loads === "difference" ? 1 : 0));
  }
  const press = segments($("mixture-choice"), MIXTURES.map((mixture) => mixture.name), (mixture) => select({ mixture }));
  presses.push(() => press(state.mixture));
  for (let layer = 0; layer < LAYERS; layer++) option($("layer"), layer, layer);
  option($("expert"), "", "all");
  for (let expert = 0; expert < Math.max(...MIXTURES.map(({ experts }) => experts)); expert++) option($("expert"), expert, expert);
  option($("color"), "experts", "experts");
  const has = (name) => RUNS.every((run) => run.routing.every((routing) => routing[name]));
  if (has("margin")) option($("color"), "margin", "margin");
  if (has("entropy")) option($("color"), "entropy", "entropy");
  if (SAME_TOKENS) option($("color"), "difference", "difference of A and B");
  $("layer").addEventListener("change", () => select({ layer: Number($("layer").value) }));
  $("expert").addEventListener("change", () => select({ expert: $("expert").value === "" ? null : Number($("expert").value) }));
  $("color").addEventListener("change", () => select({ color: $("color").value }));
  $("threshold").addEventListener("change", () => {
    const threshold = Number($("threshold").value);
    if (threshold >= 0 && Number.isFinite(threshold)) select({ threshold });
  });
  $("threshold-label").hidden = !has("margin");
  $("threshold").value = state.threshold;
  $("difference-key").hidden = !SAME_TOKENS;
  $("next-difference").addEventListener("click", () => goToDifference(1));
  $("previous-difference").addEventListener("click", () => goToDifference(-1));
}

function showChoices() {
  presses.forEach((show) => show());
  $("layer").value = state.layer;
  $("expert").value = state.expert === null ? "" : state.expert;
  $("color").value = state.color;
}

function buildHeader() {
  $("lead").textContent = DATA.lead;
  RUNS.forEach((run) => run.facts.push(["Tokens", count(run.tokens.length)]));
  const names = [...new Set(RUNS.flatMap((run) => run.facts.map(([name]) => name)))];
  const facts = names.map((name) => {
    const values = RUNS.map((run) => run.facts.find(([other]) => other === name)?.[1] ?? "–");
    const same = values.every((value) => value === values[0]);
    return [name, same ? values[0] : values.map((value, run) => `${LETTERS[run]}: ${value}`).join(" · ")];
  });
  facts.push(["Layers", count(LAYERS)], ["Experts of a layer", MIXTURES.map(({ name, experts, perToken }) => `${perToken} of ${experts} in ${name}`).join(", ")]);
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const part = element("div");
    part.append(element("dt", "", name), element("dd", "", value));
    return part;
  }));
  $("notice").hidden = !DATA.notice;
  $("notice").textContent = DATA.notice ?? "";
  $("load-explanation").textContent = "The share of the tokens that take an expert, in percent, by layer (rows) and expert (columns). Choose a cell to see its tokens; the arrow keys move.";
}

function buildPaths() {
  MIXTURES.forEach((mixture, index) => {
    const canvas = element("canvas");
    canvas.id = `path-${index}`;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("click", (event) => onPathClick(event, index));
    $("paths").append(element("h3", "", `${mixture.name}: experts (rows) by layers (columns)`), canvas);
  });
}

function onLoadClick(event) {
  const cell = event.target.closest("td");
  if (!cell) return;
  const [, mixture, layer, expert] = cell.id.split("-").map(Number);
  const again = state.mixture === mixture && state.layer === layer && state.expert === expert;
  select({ mixture, layer, expert: again ? null : expert });
  $(`load-${mixture}`).focus();
}

function start() {
  if (RUNS.some((run) => run.tokens.length === 0)) {
    $("notice").hidden = false;
    $("notice").textContent = "There is no token to show.";
    return;
  }
  buildHeader();
  buildChoices();
  buildTexts();
  buildPaths();
  buildDifferences();
  $("overview").addEventListener("click", onOverviewClick);
  $("overview-scroller").addEventListener("scroll", paintOverview, { passive: true });
  $("token-details").addEventListener("toggle", paintTokenTable);
  $("loads").addEventListener("click", onLoadClick);
  $("loads").addEventListener("keydown", onLoadKey);
  showChoices();
  paintAll();
  $("live").textContent = describe();
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(paintAll);
  });
  darkScheme.addEventListener("change", paintAll);
}

start();
