// An answer as it grows: pieces of text with the tokens that they came from, the experts of the tokens, and times.

/**
 * A piece is the text of one chunk with its tokens. Mostly that is one token. Where the server holds text back, because a
 * character or a stop string is incomplete, several tokens share a piece, so that the pieces joined are exactly the answer.
 */
export class Answer {
  constructor(now = () => performance.now()) {
    this.now = now;
    this.started = now();
    this.firstAt = null;
    this.lastAt = null;
    this.pieces = [];
    this.held = [];
    this.finish = null;
    this.usage = null;
  }

  get text() {
    return this.pieces.map((piece) => piece.text).join("");
  }

  /** The tokens of all pieces, in their order, those of a text that is held back last. */
  get tokens() {
    return [...this.pieces.flatMap((piece) => piece.tokens), ...this.held];
  }

  /** Adds a chunk of either route. Returns the new piece, if the chunk completes one. */
  add(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return null;
    const text = choice.delta ? choice.delta.content ?? "" : choice.text ?? "";
    this.held.push(...tokensOf(choice));
    if (text !== "" || this.held.length > 0) this.#time();
    if (choice.finish_reason) this.finish = choice.finish_reason;
    if (text !== "") return this.#push(text);
    return this.finish && this.held.length > 0 ? this.#push("") : null;
  }

  #push(text) {
    const piece = { text, tokens: this.held };
    this.held = [];
    this.pieces.push(piece);
    return piece;
  }

  #time() {
    this.lastAt = this.now();
    this.firstAt ??= this.lastAt;
  }

  /** Seconds to the first token, `null` before it. */
  get timeToFirst() {
    return this.firstAt === null ? null : (this.firstAt - this.started) / 1000;
  }

  /** Number of tokens: the server's, or until it says so the chunks with text. */
  get count() {
    return this.usage?.completion_tokens ?? Math.max(this.tokens.length, this.pieces.length);
  }

  /** Tokens per second after the first one, `null` before the second. */
  get perSecond() {
    const seconds = (this.lastAt - this.firstAt) / 1000;
    return this.count > 1 && seconds > 0 ? (this.count - 1) / seconds : null;
  }
}

/** The tokens of a choice, each with its log-probability, the most probable tokens in its place, and its experts. */
function tokensOf(choice) {
  const experts = choice.experts ?? [];
  const chat = choice.logprobs?.content;
  if (chat) return chat.map((token, index) => ({ text: token.token, logprob: token.logprob, best: token.top_logprobs ?? [], experts: experts[index] ?? null }));
  const { tokens, token_logprobs: logprobs, top_logprobs: top } = choice.logprobs ?? {};
  if (tokens) {
    const best = (index) => Object.entries(top?.[index] ?? {}).map(([token, logprob]) => ({ token, logprob })).sort((a, b) => b.logprob - a.logprob);
    return tokens.map((text, index) => ({ text, logprob: logprobs[index], best: best(index), experts: experts[index] ?? null }));
  }
  return experts.map((list) => ({ text: null, logprob: null, best: [], experts: list }));
}
