// Draws which experts the tokens of an answer took: a map with a column for each token and a row for each layer and mixture.
// The number of an expert is written wherever it fits; a table says the same in text.

/** The mixtures of a layer, in the order in which the server reports them. */
export const MIXTURES = ["attention", "MLP"];

/** Okabe and Ito's colours, which people with any colour vision tell apart. */
const COLORS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];

const CELL = 18;
const AXIS = 46;
const GAP = 10;

export function expertColor(expert, experts) {
  if (experts <= COLORS.length) return COLORS[expert];
  // lightness alternates, so that neighbours differ without their hue
  return `hsl(${Math.round((expert * 137.508) % 360)} 60% ${[42, 62, 80][expert % 3]}%)`;
}

/** Black or white, whichever contrasts more with one of the colours above (WCAG 2, relative luminance). */
export function inkOn(color) {
  if (!color.startsWith("#")) return Number(/(\d+)%\)/.exec(color)[1]) > 50 ? "#000" : "#fff";
  const [r, g, b] = [1, 3, 5].map((at) => {
    const value = parseInt(color.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** Tokens that report experts, with their index among all tokens. */
function reporting(tokens) {
  return tokens.map((token, index) => ({ index, experts: token.experts })).filter(({ experts }) => experts?.length > 0);
}

/** One more than the highest expert that occurs: the number of experts, unless the last ones took no token. */
export function expertsIn(tokens) {
  return 1 + Math.max(-1, ...reporting(tokens).flatMap(({ experts }) => experts.flat(2)));
}

/** How many tokens each expert took: `[layer][mixture][expert]`. */
export function loads(tokens, experts) {
  const rows = reporting(tokens);
  const layers = rows[0]?.experts.length ?? 0;
  const count = Array.from({ length: layers }, () => MIXTURES.map(() => new Array(experts).fill(0)));
  for (const row of rows) row.experts.forEach((layer, l) => layer.forEach((list, m) => list.forEach((expert) => count[l][m][expert]++)));
  return count;
}

/** The experts of a token in words. */
export function describe(experts) {
  return experts.map((layer, l) => `layer ${l}: ${layer.map((list, m) => `${MIXTURES[m]} ${list.join(" and ")}`).join(", ")}`).join("; ");
}

/** Where a point of the map is: a token, or `null` beside the cells. */
export function tokenAt(tokens, x) {
  const column = Math.floor((x - AXIS) / CELL);
  return reporting(tokens)[column]?.index ?? null;
}

/** Draws the map. `theme` returns a colour of the page by name. */
export function drawMap(canvas, tokens, selected, theme) {
  const rows = reporting(tokens);
  const experts = expertsIn(tokens);
  const layers = rows[0]?.experts.length ?? 0;
  const block = layers * CELL + GAP;
  const context = prepare(canvas, AXIS + rows.length * CELL + 2, MIXTURES.length * block);
  MIXTURES.forEach((mixture, m) => {
    for (let layer = 0; layer < layers; layer++) {
      const y = m * block + layer * CELL;
      context.fillStyle = theme("muted");
      context.textAlign = "right";
      context.fillText(`${mixture === "MLP" ? "mlp" : "att"} ${layer}`, AXIS - 6, y + CELL / 2);
      rows.forEach((row, column) => drawCell(context, row.experts[layer][m], experts, AXIS + column * CELL, y));
    }
  });
  const column = rows.findIndex(({ index }) => index === selected);
  if (column >= 0) {
    context.strokeStyle = theme("ink");
    context.lineWidth = 2;
    context.strokeRect(AXIS + column * CELL - 0.5, 1, CELL, MIXTURES.length * block - GAP - 1);
  }
  canvas.setAttribute("aria-label", `${rows.length} tokens by ${layers} layers; the table below says how many tokens each expert took, the panel “Token” the experts of the selected one.`);
}

/** A cell: the first expert fills it and has its number in it, the others are bars below. */
function drawCell(context, list, experts, x, y) {
  const [first, ...others] = list;
  if (first === undefined) return;
  const color = expertColor(first, experts);
  const bar = others.length > 0 ? 4 : 0;
  context.fillStyle = color;
  context.fillRect(x, y, CELL - 1, CELL - 1 - bar);
  context.fillStyle = inkOn(color);
  context.textAlign = "center";
  context.fillText(first, x + CELL / 2 - 0.5, y + (CELL - bar) / 2);
  const width = (CELL - 1) / Math.max(1, others.length);
  others.forEach((expert, index) => {
    context.fillStyle = expertColor(expert, experts);
    context.fillRect(x + index * width, y + CELL - 1 - bar, width, bar);
  });
}

/** Sizes a canvas in CSS pixels for the resolution of the screen. */
function prepare(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "middle";
  return context;
}
