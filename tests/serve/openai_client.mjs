// Calls `jetmoe serve` with the `openai` package of npm, unmodified.
//
//     node tests/serve/openai_client.mjs PACKAGES URL
//
// PACKAGES is the folder in which package.json is installed, URL a running server with the model `mini`.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [packages, url] = process.argv.slice(2);
const require = createRequire(pathToFileURL(resolve(packages, "package.json")));
const { OpenAI, BadRequestError, NotFoundError } = require("openai");
const version = JSON.parse(readFileSync(resolve(packages, "node_modules/openai/package.json"), "utf8")).version;

const expected = JSON.parse(readFileSync(new URL("../fixtures/models/jetmoe-mini/expected.json", import.meta.url), "utf8"));
const client = new OpenAI({ baseURL: `${url}v1`, apiKey: "none", maxRetries: 0 });
const model = "mini";
const messages = [{ role: "user", content: "Who made the heaven?" }];

const checks = {
  async "a completion is transformers' text"() {
    const [{ prompt, text, generated_ids: ids }] = expected.greedy;
    const answer = await client.completions.create({ model, prompt, max_tokens: ids.length, temperature: 0 });
    assert.equal(prompt + answer.choices[0].text, text);
  },
  async "a streamed conversation is the answer without streaming"() {
    const body = { model, messages, max_completion_tokens: 16, temperature: 1, seed: 4 };
    const whole = await client.chat.completions.create(body);
    let text = "";
    let usage = null;
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage ??= chunk.usage;
    }
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  },
  async "a stream that its reader leaves ends"() {
    const stream = await client.chat.completions.create({ model, messages, max_completion_tokens: 400, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta?.content) break;
    }
    const after = await client.completions.create({ model, prompt: "x", max_tokens: 1 });
    assert.equal(after.usage.completion_tokens, 1);
  },
  async "an answer by a JSON schema has its fields"() {
    const schema = { type: "object", properties: { age: { type: "integer", minimum: 0, maximum: 99 } }, required: ["age"], additionalProperties: false };
    const answer = await client.chat.completions.create({ model, messages, max_completion_tokens: 60, temperature: 1, seed: 1, response_format: { type: "json_schema", json_schema: { name: "age", schema, strict: true } } });
    const value = JSON.parse(answer.choices[0].message.content);
    assert.deepEqual(Object.keys(value), ["age"]);
    assert.ok(Number.isInteger(value.age) && value.age >= 0 && value.age <= 99, `${value.age}`);
  },
  async "log-probabilities are streamed"() {
    const chunks = await client.chat.completions.create({ model, messages, max_completion_tokens: 6, temperature: 0, logprobs: true, top_logprobs: 2, stream: true });
    const tokens = [];
    for await (const chunk of chunks) tokens.push(...(chunk.choices[0]?.logprobs?.content ?? []));
    assert.equal(tokens.length, 6);
    for (const token of tokens) assert.ok(token.logprob <= 0 && token.top_logprobs.length === 2 && token.top_logprobs[0].logprob === token.logprob, JSON.stringify(token));
  },
  async "a response has events and a text"() {
    const stream = await client.responses.create({ model, input: "Who made the heaven?", max_output_tokens: 8, temperature: 0, stream: true });
    const events = [];
    for await (const event of stream) events.push(event);
    const text = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta).join("");
    const whole = await client.responses.create({ model, input: "Who made the heaven?", max_output_tokens: 8, temperature: 0 });
    assert.equal(text, whole.output_text);
    assert.equal(events[0].type, "response.created");
  },
  async "embeddings are vectors of length 1"() {
    const { data } = await client.embeddings.create({ model: "backbone", input: ["a", "b"] });
    assert.equal(data.length, 2);
    for (const { embedding } of data) assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-4);
  },
  async "errors name the parameter"() {
    const error = await client.completions.create({ model, prompt: "x", temperature: -1 }).catch((error) => error);
    assert.ok(error instanceof BadRequestError, `${error}`);
    assert.equal(error.param, "temperature");
    const missing = await client.models.retrieve("gpt-4").catch((error) => error);
    assert.ok(missing instanceof NotFoundError, `${missing}`);
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    console.error(`FAILED ${name}`);
    throw error;
  }
  console.log(`  ${name}`);
}
console.log(`openai ${version} of npm: ${Object.keys(checks).length} checks passed`);
