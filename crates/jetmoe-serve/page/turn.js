// One turn of the conversation: what was asked, the answer as it grows, and its figures.

import { $, element, followEnd, percent, plural, visible } from "./dom.js";
import { Answer } from "./answer.js";

let turns = 0;

/** Shows an answer. `onSelect` is told which token the reader points at. */
export class Turn {
  constructor(question, { mode, inspects }, onSelect) {
    this.answer = new Answer();
    this.mode = mode;
    this.onSelect = onSelect;
    this.id = `turn-${turns++}`;
    this.selected = -1;
    this.element = element("article", `turn ${mode}`);
    this.element.setAttribute("aria-label", mode === "chat" ? "Question and answer" : "Prompt and continuation");
    const asked = element("p", "asked", question);
    this.box = element("div", "answer");
    this.box.setAttribute("aria-busy", "true");
    if (inspects) this.#makeSelectable();
    this.figures = element("p", "figures");
    this.element.append(asked, this.box, this.figures);
    $("log").append(this.element);
  }

  /** A list of tokens in which the arrow keys and the pointer select. */
  #makeSelectable() {
    this.box.tabIndex = 0;
    this.box.id = this.id;
    this.box.setAttribute("role", "listbox");
    this.box.setAttribute("aria-label", "Tokens of the answer");
    const at = (event) => event.target.closest("[data-piece]");
    this.box.addEventListener("pointerover", (event) => at(event) && event.pointerType !== "touch" && this.select(Number(at(event).dataset.piece)));
    this.box.addEventListener("click", (event) => at(event) && this.select(Number(at(event).dataset.piece)));
    this.box.addEventListener("focus", () => this.select(Math.max(0, this.selected)));
    this.box.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #onKey(event) {
    const last = this.answer.pieces.length - 1;
    const to = { ArrowLeft: this.selected - 1, ArrowRight: this.selected + 1, ArrowUp: this.selected - 1, ArrowDown: this.selected + 1, PageUp: this.selected - 25, PageDown: this.selected + 25, Home: 0, End: last }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(last, to));
    this.select(index);
    this.box.children[index]?.scrollIntoView({ block: "nearest" });
  }

  /** Selects a piece. */
  select(index) {
    const piece = this.box.children[index];
    if (!piece) return;
    this.unselect();
    this.selected = index;
    piece.setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", piece.id);
    this.onSelect(this, index);
  }

  /** Another turn has the selection. The arrow keys still begin where they were. */
  unselect() {
    this.box.children[this.selected]?.setAttribute("aria-selected", "false");
  }

  /** Takes a chunk of the stream and shows what it adds. */
  add(chunk) {
    const piece = this.answer.add(chunk);
    if (piece) followEnd($("log"), () => this.box.append(this.#pieceElement(piece)));
  }

  #pieceElement(piece) {
    const index = this.answer.pieces.length - 1;
    const part = element("span", "piece", piece.text);
    if (piece.text === "") {
      part.classList.add("end");
      part.textContent = visible(piece.tokens.map((token) => token.text ?? "").join(""));
    }
    const logprobs = piece.tokens.map((token) => token.logprob).filter((logprob) => typeof logprob === "number");
    if (logprobs.length > 0) part.dataset.sure = sureness(Math.min(...logprobs));
    if (this.box.getAttribute("role") === "listbox") {
      part.id = `${this.id}-${index}`;
      part.dataset.piece = index;
      part.setAttribute("role", "option");
      part.setAttribute("aria-selected", "false");
      if (/^\s*$/.test(piece.text)) part.setAttribute("aria-label", visible(piece.text));
    }
    return part;
  }

  /** Figures below the answer: number of tokens, times, why it ended. */
  showFigures() {
    const { answer } = this;
    const figures = [plural(answer.count, "token")];
    if (answer.timeToFirst !== null) figures.push(`first after ${answer.timeToFirst.toFixed(2)} s`);
    if (answer.perSecond !== null) figures.push(`${answer.perSecond.toFixed(1)} tokens per second`);
    const cached = answer.usage?.prompt_tokens_details?.cached_tokens;
    if (answer.usage) figures.push(`prompt of ${plural(answer.usage.prompt_tokens, "token")}${cached ? `, ${cached} of them reused` : ""}`);
    if (answer.finish) figures.push(`ended by “${answer.finish}”`);
    this.figures.textContent = figures.join(" · ");
  }

  /** No more chunks come. */
  end(note) {
    this.box.setAttribute("aria-busy", "false");
    this.showFigures();
    if (note) this.figures.textContent += ` · ${note}`;
  }
}

/** How probable a token was, in four classes that the style sheet shows as lines below the text. */
function sureness(logprob) {
  const share = Math.exp(logprob);
  return share >= 0.8 ? "high" : share >= 0.4 ? "middle" : share >= 0.1 ? "low" : "least";
}

/** The text of a token for the live region. */
export function spoken(token) {
  const chosen = typeof token.logprob === "number" ? `, ${percent(token.logprob)}` : "";
  const others = token.best.filter((other) => other.token !== token.text).slice(0, 3);
  const rest = others.length > 0 ? `; also ${others.map((other) => `“${visible(other.token)}” ${percent(other.logprob)}`).join(", ")}` : "";
  return `“${visible(token.text)}”${chosen}${rest}`;
}
