// The page's modules that need no browser: node --test tests/serve/modules.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";

const page = new URL("../../crates/jetmoe-serve/page/", import.meta.url);
const { eventsOf, linesOf } = await import(new URL("sse.js", page));
const { Answer } = await import(new URL("answer.js", page));
const { chatBody, completionBody, requestFields, unescape } = await import(new URL("controls.js", page));
const { describe, expertColor, expertsIn, inkOn, loads } = await import(new URL("experts.js", page));

function stream(chunks, onCancel = () => {}) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
      controller.close();
    },
    cancel: onCancel,
  });
}

const all = async (generator) => {
  const items = [];
  for await (const item of generator) items.push(item);
  return items;
};

test("lines end with LF, CR LF or CR, wherever a stream is split", async () => {
  const bytes = new TextEncoder().encode("a\r\nb\nc\rd é\r\n\r\n");
  const expected = ["a", "b", "c", "d é", ""];
  for (let at = 0; at <= bytes.length; at++) {
    assert.deepEqual(await all(linesOf(stream([bytes.slice(0, at), bytes.slice(at)]))), expected, `split at ${at}`);
  }
  assert.deepEqual(await all(linesOf(stream([...bytes].map((byte) => Uint8Array.of(byte))))), expected, "one byte at a time");
});

test("events have joined data, comments and other fields are skipped, and an incomplete event is dropped", async () => {
  const text = ": hello\ndata: 1\n\nevent: x\ndata:2\ndata: 3\nid: 7\n\n\ndata\n\ndata: lost";
  assert.deepEqual(await all(eventsOf(stream([text]))), ["1", "2\n3", ""]);
});

test("a reader that leaves ends the request", async () => {
  let cancelled = false;
  const endless = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: x\n\n")),
    cancel: () => { cancelled = true; },
  });
  for await (const event of eventsOf(endless)) {
    assert.equal(event, "x");
    break;
  }
  assert.ok(cancelled);
});

const token = (text, logprob, experts) => ({ text, logprob, experts });
const chat = (content, tokens, finish = null) => ({
  choices: [{
    delta: content === null ? {} : { content },
    finish_reason: finish,
    logprobs: { content: tokens.map(({ text, logprob }) => ({ token: text, logprob, top_logprobs: [] })) },
    experts: tokens.map(({ experts }) => experts ?? []),
  }],
});

test("pieces joined are the answer, and a text that was held back has all its tokens", () => {
  let clock = 0;
  const answer = new Answer(() => clock);
  clock = 500;
  answer.add(chat(" In", [token(" In", -0.5, [[[1, 2], [3, 4]]])]));
  answer.add(chat(null, [token("�", -1)]));
  answer.add(chat("é", [token("�", -2)]));
  clock = 1500;
  answer.add(chat(null, [token("</s>", -0.1)], "stop"));
  answer.add({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } });
  assert.equal(answer.text, " Iné");
  assert.deepEqual(answer.pieces.map((piece) => piece.tokens.length), [1, 2, 1]);
  assert.deepEqual(answer.tokens[0].experts, [[[1, 2], [3, 4]]]);
  assert.deepEqual([answer.timeToFirst, answer.perSecond, answer.finish, answer.count], [0.5, 3, "stop", 4]);
});

test("a completion's log-probabilities are read in their own form, the most probable first", () => {
  const answer = new Answer(() => 0);
  answer.add({ choices: [{ text: " a", finish_reason: null, logprobs: { tokens: [" a"], token_logprobs: [-1], top_logprobs: [{ b: -3, " a": -1 }] } }] });
  assert.deepEqual(answer.tokens[0].best, [{ token: " a", logprob: -1 }, { token: "b", logprob: -3 }]);
});

test("an answer without tokens has its text, and no rate", () => {
  const answer = new Answer(() => 0);
  answer.add({ choices: [{ delta: { role: "assistant", content: "" }, finish_reason: null }] });
  assert.equal(answer.timeToFirst, null);
  answer.add({ choices: [{ delta: { content: "x" }, finish_reason: null }] });
  assert.deepEqual([answer.text, answer.perSecond], ["x", null]);
});

test("an empty setting is not sent, and zero is", () => {
  const values = { temperature: "0", top_k: " ", stop: "a\\nb\n\n\\\\n", max_tokens: "5" };
  const fields = requestFields((name) => values[name] ?? "");
  assert.deepEqual(fields, { temperature: 0, max_tokens: 5, stop: ["a\nb", "\\n"] });
  assert.equal(unescape("\\x\\t"), "\\x\t");
  const shows = { logprobs: true, experts: false };
  const { max_completion_tokens: tokens, max_tokens: old, logprobs, top_logprobs: top, experts } = chatBody("m", [], fields, shows);
  assert.deepEqual([tokens, old, logprobs, top, experts], [5, undefined, true, 5, undefined]);
  assert.equal(completionBody("m", "p", fields, { logprobs: false, experts: true }).experts, true);
});

test("the load of the experts counts every token that reports them", () => {
  const tokens = [token("a", 0, [[[1, 2], [0, 3]]]), token("b", 0, []), token("c", 0, [[[1, 0], [3, 2]]]), token("d", 0, null)];
  assert.equal(expertsIn(tokens), 4);
  assert.deepEqual(loads(tokens, 4), [[[1, 2, 1, 0], [1, 0, 1, 2]]]);
  assert.equal(expertsIn([token("b", 0, [])]), 0);
  assert.equal(describe(tokens[0].experts), "layer 0: attention 1 and 2, MLP 0 and 3");
});

test("experts have different colours with readable numbers", () => {
  for (const experts of [8, 20]) {
    const colors = Array.from({ length: experts }, (_, expert) => expertColor(expert, experts));
    assert.equal(new Set(colors).size, experts);
    for (const color of colors) assert.match(inkOn(color), /^#(000|fff)$/);
  }
});
