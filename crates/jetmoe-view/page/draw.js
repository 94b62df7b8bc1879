// Colours and canvases. Every colour has a number, a size or a pattern next to it that says the same.

const darkScheme = matchMedia("(prefers-color-scheme: dark)");

/** Okabe and Ito's colours, which people with any colour vision tell apart. */
const EXPERT_COLORS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];

function expertColor(expert, experts) {
  if (experts <= EXPERT_COLORS.length) return EXPERT_COLORS[expert];
  // lightness alternates, so that neighbours differ without their hue
  return hex(hslToRgb((expert * 137.508) % 360, 0.6, [0.42, 0.62, 0.8][expert % 3]));
}

function hslToRgb(hue, saturation, lightness) {
  const chroma = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (lightness - chroma * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}
const hex = (rgb) => `#${rgb.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
const rgbOf = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));

/** Stops of one-hue ramps from the panel's colour to a strong one, in the light and the dark scheme. */
const RAMPS = {
  blue: [["#f4f7fb", "#c3daf1", "#6aa6dc", "#1f6ab2", "#0a3a70"], ["#202733", "#1f4266", "#2f72b0", "#69aeea", "#d3e9ff"]],
  orange: [["#f8f5f1", "#f6d6b8", "#eb9d5b", "#c1601a", "#7a3405"], ["#262320", "#553519", "#9c5719", "#e79243", "#ffe0bd"]],
  difference: [["#0b5cad", "#a8cbee", "#f4f5f7", "#f2bd92", "#b34700"], ["#7db7f5", "#345c86", "#262c36", "#7d5130", "#f2a35e"]],
};

/** The colour of a value between 0 and 1. */
function ramp(name, value) {
  const stops = RAMPS[name][darkScheme.matches ? 1 : 0];
  const at = Math.max(0, Math.min(1, value || 0)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [rgbOf(stops[low]), rgbOf(stops[low + 1])];
  return hex(from.map((part, i) => Math.round(part + (to[i] - part) * (at - low))));
}

/** Black or white, whichever contrasts more (WCAG 2, relative luminance). */
function inkOn(color) {
  const [r, g, b] = rgbOf(color).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

const theme = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Sizes a canvas in CSS pixels for the resolution of the screen. */
function prepare(canvas, width, height) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  return context;
}

/** Every how many positions a label fits. */
function labelStep(cell, needed) {
  return [1, 2, 4, 5, 10, 20, 25, 50, 100, 200, 500, 1000].find((step) => step * cell >= needed) || 2000;
}

/** Diagonal lines over a cell: the pattern of a difference, for eyes that do not tell the colours apart. */
function hatch(context, x, y, width, height, color) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = color;
  context.lineWidth = 1.2;
  context.beginPath();
  for (let at = -height; at < width; at += 4) {
    context.moveTo(x + at, y + height);
    context.lineTo(x + at + height, y);
  }
  context.stroke();
  context.restore();
}

/** An element with a class and text; text is never parsed as HTML. */
function element(tag, className, text) {
  const result = document.createElement(tag);
  if (className) result.className = className;
  if (text !== undefined) result.textContent = text;
  return result;
}

function legendColor(label, color) {
  const item = element("li");
  const swatch = element("span", "swatch");
  swatch.style.background = color;
  item.append(swatch, label);
  return item;
}

function legendRamp(name, from, to) {
  const item = element("li");
  const strip = element("span", "ramp");
  const stops = [0, 0.25, 0.5, 0.75, 1].map((value) => ramp(name, value));
  strip.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  item.append(from, strip, to);
  return item;
}

/** A legend entry with a small drawing. */
function legendDrawing(label, draw) {
  const item = element("li");
  const canvas = element("canvas");
  draw(prepare(canvas, 18, 16));
  item.append(canvas, label);
  return item;
}

/** The mark of a run: a disc for A, a ring for B. */
function drawMark(context, run, x, y, radius, color) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (run === 0) {
    context.fillStyle = color;
    context.fill();
  } else {
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.stroke();
  }
}

function drawTriangle(context, x, y, size, color) {
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y + size * 0.7);
  context.lineTo(x - size, y + size * 0.7);
  context.fill();
}
