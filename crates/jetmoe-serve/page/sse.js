// Reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) from the body of a response.

/** The lines of a stream of bytes, without their ends. A line ends with LF, CR LF or CR, wherever the chunks are split. */
export async function* linesOf(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  // after a CR at the end of a chunk, an LF at the beginning of the next one belongs to it
  let afterReturn = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      let text = done ? decoder.decode() : decoder.decode(value, { stream: true });
      if (afterReturn && text.startsWith("\n")) text = text.slice(1);
      if (text !== "") afterReturn = text.endsWith("\r");
      const lines = (rest + text).split(/\r\n|\n|\r/);
      rest = lines.pop();
      yield* lines;
      if (done) break;
    }
    if (rest !== "") yield rest;
  } finally {
    // cancels the request if the reader of these lines has left
    await reader.cancel().catch(() => {});
  }
}

/** The data of every event of a stream. An event that the stream does not complete is dropped, as the specification says. */
export async function* eventsOf(stream) {
  let data = [];
  for await (const line of linesOf(stream)) {
    if (line === "") {
      if (data.length > 0) yield data.join("\n");
      data = [];
      continue;
    }
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "data") data.push(value);
  }
}
