// Puts the page together: the choices on top, the composer, and one request at a time.

import { apiKey, models, streamed } from "./api.js";
import { buildFields, chatBody, completionBody, requestFields } from "./controls.js";
import { $, element, plural } from "./dom.js";
import { clearInspector, drawExperts, follow, inspect } from "./inspector.js";
import { Turn } from "./turn.js";

const state = {
  mode: "chat",
  /** What the server says of each model, by its name. */
  models: new Map(),
  /** Messages of the conversation, without the system message. */
  messages: [],
  /** Ends the request in progress. */
  request: null,
};

const MODES = {
  chat: { route: "v1/chat/completions", label: "Message", heading: "Conversation", send: "Send" },
  completion: { route: "v1/completions", label: "Text to continue", heading: "Completion", send: "Continue" },
};

function setMode(mode) {
  state.mode = mode;
  for (const name of Object.keys(MODES)) $(`mode-${name}`).setAttribute("aria-pressed", String(name === mode));
  $("prompt-label").textContent = MODES[mode].label;
  $("talk-heading").textContent = MODES[mode].heading;
  $("send").textContent = MODES[mode].send;
  $("field-system").hidden = mode !== "chat";
  begin();
}

/** Begins a new conversation. */
function begin() {
  state.request?.abort();
  state.messages = [];
  $("log").replaceChildren();
  $("empty").hidden = false;
  say("");
  showError(null);
  clearInspector();
}

async function loadModels() {
  try {
    const list = await models();
    state.models = new Map(list.map((model) => [model.id, model]));
    const chosen = $("model").value;
    $("model").replaceChildren(...list.filter(generates).map((model) => new Option(model.id, model.id, false, model.id === chosen)));
    showError($("model").options.length > 0 ? null : { message: "The server has no model that generates text." });
  } catch (error) {
    showError(error);
  }
  showWhatTheModelReports();
}

/** Whether a model generates text; one whose task the server does not say is tried. */
const generates = (model) => (model.task ?? "causal-lm") === "causal-lm";

/** Experts are offered only if the server says that the model reports them. */
function showWhatTheModelReports() {
  const model = state.models.get($("model").value);
  const reports = model?.observes_experts === true;
  $("show-experts").disabled = !reports;
  $("show-experts").closest("label").hidden = !reports;
  if (!reports) $("show-experts").checked = false;
  $("experts-help").textContent = reports || !model ? "" : "This model was not loaded to report its experts.";
}

/** Shows an error as the server words it: the problem, the parameter, what to do. */
function showError(error) {
  const box = $("error");
  box.hidden = error === null;
  box.replaceChildren();
  if (error === null) return;
  box.append(element("p", "message", error.message));
  if (error.advice) box.append(element("p", "", error.advice));
  const facts = [];
  if (error.parameter) facts.push(`parameter ${error.parameter}`);
  if (error.status) facts.push(`status ${error.status}`);
  if (error.retryAfter) facts.push(`try again after ${plural(Number(error.retryAfter), "second")}`);
  if (error.requestId) facts.push(`request ${error.requestId}`);
  if (facts.length > 0) box.append(element("p", "facts", facts.join(" · ")));
  if (error.status === 401) {
    $("settings-details").open = true;
    $("key").focus();
  }
}

function body(prompt, shows) {
  const fields = requestFields((name) => $(`set-${name}`).value);
  const model = $("model").value;
  if (state.mode === "completion") return completionBody(model, prompt, fields, shows);
  const system = $("set-system").value;
  const first = system === "" ? [] : [{ role: "system", content: system }];
  return chatBody(model, [...first, ...state.messages, { role: "user", content: prompt }], fields, shows);
}

async function ask() {
  if (state.request) return;
  if ($("prompt").value === "") {
    $("prompt").focus();
    return;
  }
  if (!$("settings").checkValidity()) {
    // a field in a closed part of the page cannot show what is wrong with it
    $("settings-details").open = true;
    $("settings").reportValidity();
    return;
  }
  const prompt = $("prompt").value;
  const shows = { logprobs: $("show-logprobs").checked, experts: $("show-experts").checked };
  const request = new AbortController();
  const sent = body(prompt, shows);
  state.request = request;
  showError(null);
  setBusy(true);
  const turn = new Turn(prompt, { mode: state.mode, inspects: shows.logprobs || shows.experts }, inspect);
  $("empty").hidden = true;
  follow(turn);
  const paint = painter(turn);
  try {
    for await (const chunk of streamed(MODES[state.mode].route, sent, request.signal)) {
      turn.add(chunk);
      paint();
    }
    turn.end();
    finished(prompt, turn, `Answered with ${plural(turn.answer.count, "token")}.`);
  } catch (error) {
    if (request.signal.aborted) {
      turn.end("stopped");
      if (turn.answer.pieces.length === 0) discard(turn);
      else if (turn.element.isConnected) finished(prompt, turn, "Stopped.");
    } else {
      turn.end("failed");
      if (turn.answer.pieces.length === 0) discard(turn);
      showError(error);
    }
  } finally {
    // `New` may have begun another request meanwhile
    if (state.request === request) {
      state.request = null;
      setBusy(false);
    }
    drawExperts();
  }
}

/** The question is answered: the input is empty again, and the conversation goes on from the answer. */
function finished(prompt, turn, says) {
  if (state.mode === "chat") state.messages.push({ role: "user", content: prompt }, { role: "assistant", content: turn.answer.text });
  $("prompt").value = "";
  say(says, turn.answer.text);
}

/** Says what happened, below the input; a screen reader reads the complete answer after it. */
function say(text, answer = "") {
  $("status").textContent = text;
  $("answer-live").textContent = answer;
}

/** Removes a turn without an answer; its question is still in the input. */
function discard(turn) {
  turn.element.remove();
  $("empty").hidden = $("log").childElementCount > 0;
  say("No answer.");
}

/** Paints what changes with every token at most once per frame. */
function painter(turn) {
  let planned = false;
  return () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      if (!turn.element.isConnected || turn.box.getAttribute("aria-busy") === "false") return;
      turn.showFigures();
      drawExperts();
    });
  };
}

function setBusy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  if (busy) say("Answering…");
  $(busy ? "stop" : "prompt").focus({ preventScroll: true });
}

function stop() {
  state.request?.abort();
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
addEventListener("keydown", (event) => event.key === "Escape" && stop());
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", () => {
  begin();
  $("prompt").focus();
});
for (const mode of Object.keys(MODES)) $(`mode-${mode}`).addEventListener("click", () => mode !== state.mode && setMode(mode));
$("model").addEventListener("change", showWhatTheModelReports);
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("key").value = apiKey.get();
$("key").addEventListener("change", () => {
  apiKey.set($("key").value);
  loadModels();
});

buildFields($("fields"));
if (matchMedia("(max-width: 860px)").matches) $("settings-details").open = false;
setMode("chat");
await loadModels();
document.documentElement.dataset.ready = "true";
