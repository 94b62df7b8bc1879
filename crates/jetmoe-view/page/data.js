"use strict";
// The data of the page: arrays that are decoded once, and the questions that the panels ask.

const DATA = JSON.parse(document.getElementById("data").textContent);

function bytes(text) {
  const binary = atob(text);
  const result = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) result[i] = binary.charCodeAt(i);
  return result;
}

/** 16-bit values, little-endian on every machine. */
function words(text) {
  const from = bytes(text);
  const result = new Uint16Array(from.length / 2);
  for (let i = 0; i < result.length; i++) result[i] = from[2 * i] | (from[2 * i + 1] << 8);
  return result;
}

/** IEEE 754 half precision. */
function halves(text) {
  return Float32Array.from(words(text), (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  });
}

const LAYERS = DATA.layers;
const MIXTURES = DATA.mixtures;
const RUNS = DATA.runs.map((run) => ({
  ...run,
  breaks: new Set(run.breaks),
  routing: run.routing.map((routing) => ({
    experts: words(routing.experts),
    gates: words(routing.gates),
    margin: routing.margin && halves(routing.margin),
    entropy: routing.entropy && halves(routing.entropy),
    probabilities: routing.probabilities && bytes(routing.probabilities),
    balance: routing.balance,
  })),
}));
const COMPARES = RUNS.length > 1;
/** Two runs of the same tokens, which are compared token by token; else the texts are independent. */
const SAME_TOKENS = COMPARES && DATA.sameTokens;
const LETTERS = ["A", "B"];

/** Index into arrays with one value for each layer and token. */
const place = (run, layer, token) => layer * RUNS[run].tokens.length + token;

/** The chosen experts of a token, best first, with their gates. */
function chosen(run, mixture, layer, token) {
  const count = MIXTURES[mixture].perToken;
  const { experts, gates } = RUNS[run].routing[mixture];
  const first = place(run, layer, token) * count;
  const result = [];
  for (let slot = first; slot < first + count; slot++) result.push({ expert: experts[slot], gate: gates[slot] / 65535 });
  return result;
}

function chooses(run, mixture, layer, token, expert) {
  return chosen(run, mixture, layer, token).some((choice) => choice.expert === expert);
}

const marginOf = (run, mixture, layer, token) => RUNS[run].routing[mixture].margin?.[place(run, layer, token)];
const entropyOf = (run, mixture, layer, token) => RUNS[run].routing[mixture].entropy?.[place(run, layer, token)];

/** 0: the same experts in the same order; 1: the same in another order; 2: other experts. */
function difference(mixture, layer, token) {
  const count = MIXTURES[mixture].perToken;
  const [a, b] = RUNS.map((run) => run.routing[mixture].experts);
  const first = place(0, layer, token) * count;
  let moved = false;
  for (let slot = first; slot < first + count; slot++) {
    if (a[slot] === b[slot]) continue;
    moved = true;
    let found = false;
    for (let other = first; other < first + count; other++) found ||= a[slot] === b[other];
    if (!found) return 2;
  }
  return moved ? 1 : 0;
}

/** Assignments of every expert in a layer. */
function loads(run, mixture, layer) {
  const { perToken, experts } = MIXTURES[mixture];
  const counts = new Array(experts).fill(0);
  const from = place(run, layer, 0) * perToken;
  const to = place(run, layer + 1, 0) * perToken;
  const list = RUNS[run].routing[mixture].experts;
  for (let i = from; i < to; i++) counts[list[i]]++;
  return counts;
}

/** Every place where other experts are chosen, by token, layer and mixture. */
const DIFFERENCES = [];
if (SAME_TOKENS) {
  for (let token = 0; token < RUNS[0].tokens.length; token++)
    for (let layer = 0; layer < LAYERS; layer++)
      for (let mixture = 0; mixture < MIXTURES.length; mixture++)
        if (difference(mixture, layer, token) === 2) DIFFERENCES.push({ token, layer, mixture });
}

const percent = (share) => {
  const value = 100 * share;
  return `${value >= 9.95 || value === 0 ? value.toFixed(0) : value.toFixed(1)} %`;
};
const number = (value) => {
  if (value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value !== 0 && Math.abs(value) < 0.001) return "< 0.001";
  return value.toFixed(Math.abs(value) < 0.1 ? 3 : 2);
};
const count = (value) => value.toLocaleString("en-US");
const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;
