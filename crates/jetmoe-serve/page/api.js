// The routes of the server that the page uses, and its errors.

import { eventsOf } from "./sse.js";

const KEY = "jetmoe-api-key";

/** The key of the server's API. It is kept for this tab and session only. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key === "" ? sessionStorage.removeItem(KEY) : sessionStorage.setItem(KEY, key)),
};

/** What the server answers instead of a result. */
export class ServerError extends Error {
  constructor(status, error, headers) {
    super(error.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.parameter = error.param ?? null;
    this.advice = error.advice ?? null;
    this.code = error.code ?? error.type ?? null;
    this.requestId = headers?.get("x-request-id") ?? null;
    this.retryAfter = headers?.get("retry-after") ?? null;
  }
}

function headers() {
  const key = apiKey.get();
  return { "content-type": "application/json", ...(key === "" ? {} : { authorization: `Bearer ${key}` }) };
}

async function errorOf(response) {
  const text = await response.text();
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // a proxy in front of the server answers in its own form
    error = { message: `${response.status} ${response.statusText}: ${text.slice(0, 300)}` };
  }
  if (typeof error === "string") error = { message: error };
  return new ServerError(response.status, error, response.headers);
}

/** The models that the server has, as it lists them. */
export async function models() {
  const response = await fetch("v1/models", { headers: headers() });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).data;
}

/** The chunks of a streamed answer. `signal` ends the request. Throws a `ServerError` before or in the middle of the stream. */
export async function* streamed(route, body, signal) {
  const options = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
  const response = await fetch(route, options);
  if (!response.ok) throw await errorOf(response);
  for await (const data of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(response.status, chunk.error, response.headers);
    yield chunk;
  }
  throw new ServerError(response.status, { message: "The stream ended before its last event: the connection was lost." }, response.headers);
}
