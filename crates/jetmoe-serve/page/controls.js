// The settings: which there are, their limits, and the fields of a request that they become.

/** Every number that can be set, with the limits of the API. */
const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, help: "0 always takes the most probable token" },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, help: "the most probable tokens with this sum of probabilities" },
  { name: "top_k", label: "Top k", min: 0, step: 1, help: "the most probable tokens, this many; 0 for all" },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, help: "tokens with this share of the best one's probability" },
  { name: "max_tokens", label: "Max tokens", min: 1, step: 1, value: 256, help: "the longest answer" },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, help: "the same seed gives the same answer" },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, help: "against tokens, by how often they occur in the answer" },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, help: "against tokens that occur in the answer" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.01, step: 0.01, help: "against tokens of prompt and answer; 1 changes nothing" },
];

/** How many of the most probable tokens are shown in the place of a token. */
const ALTERNATIVES = 5;

/** Makes the fields, each a label, an input with its limits, and a description. */
export function buildFields(parent) {
  for (const { name, label, help, ...limits } of NUMBERS) {
    const input = Object.assign(document.createElement("input"), { type: "number", id: `set-${name}`, inputMode: "decimal", autocomplete: "off" });
    for (const [limit, value] of Object.entries(limits)) input.setAttribute(limit, value);
    parent.append(field(input, label, rangeOf(limits), help));
  }
  const stop = Object.assign(document.createElement("textarea"), { id: "set-stop", rows: 2, spellcheck: false });
  parent.append(field(stop, "Stop strings", "one in each line", "end the answer; \\n is a line break, \\t a tab, \\\\ a backslash"));
  const system = Object.assign(document.createElement("textarea"), { id: "set-system", rows: 2 });
  const part = field(system, "System message", "chat only", "stands before the conversation");
  part.id = "field-system";
  parent.append(part);
}

function rangeOf({ min, max }) {
  if (max === undefined || max === Number.MAX_SAFE_INTEGER) return `from ${min}`;
  return `${min} to ${max}`;
}

function field(input, label, range, help) {
  const part = document.createElement("div");
  part.className = "field";
  const name = document.createElement("label");
  name.htmlFor = input.id;
  name.textContent = label;
  const limits = document.createElement("span");
  limits.className = "range";
  limits.textContent = range;
  const text = document.createElement("span");
  text.className = "help";
  text.id = `${input.id}-help`;
  text.textContent = help;
  name.append(limits);
  input.setAttribute("aria-describedby", text.id);
  part.append(name, input, text);
  return part;
}

/** A line of the stop strings as the string that it stands for. */
export function unescape(line) {
  return line.replace(/\\(.)/g, (all, letter) => ({ n: "\n", t: "\t", "\\": "\\" })[letter] ?? all);
}

/** The fields of a request by the settings. `read` returns the text of a setting, so that this needs no page. */
export function requestFields(read) {
  const fields = {};
  for (const { name } of NUMBERS) {
    const text = read(name).trim();
    if (text !== "") fields[name] = Number(text);
  }
  const stop = read("stop").split("\n").filter((line) => line !== "").map(unescape);
  if (stop.length > 0) fields.stop = stop;
  return fields;
}

/** The body of a chat request. */
export function chatBody(model, messages, fields, shows) {
  const { max_tokens: tokens, ...rest } = fields;
  return {
    model,
    messages,
    ...rest,
    ...(tokens === undefined ? {} : { max_completion_tokens: tokens }),
    ...(shows.logprobs ? { logprobs: true, top_logprobs: ALTERNATIVES } : {}),
    ...common(shows),
  };
}

/** The body of a completion request. */
export function completionBody(model, prompt, fields, shows) {
  return { model, prompt, ...fields, ...(shows.logprobs ? { logprobs: ALTERNATIVES } : {}), ...common(shows) };
}

function common(shows) {
  return { ...(shows.experts ? { experts: true } : {}), stream: true, stream_options: { include_usage: true } };
}
