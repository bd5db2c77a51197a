/** The wish box: what the world shall be like, in words. Open while it is typed into; answers come beside it. */

import { byId } from "./menu";
import { sentence } from "./notice";
import type { Hello, PromptMessage } from "./protocol";

const ANSWER_MS = 7000;
const KEPT_WISHES = 20;

export class WishBox {
  onWish: (text: string) => void = () => {};
  onClosed: () => void = () => {};

  private readonly form = byId<HTMLFormElement>("wish");
  private readonly input = byId<HTMLInputElement>("wish-text");
  private readonly line = byId("wish-answer");
  private readonly history: string[] = [];
  private recalled = 0;
  private timer = 0;

  constructor() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send(this.input.value);
    });
    this.form.addEventListener("keydown", (event) => this.keyDown(event));
  }

  /** Everything that depends on the world: a few wishes that it understands. */
  build(hello: Hello): void {
    this.close();
    const examples = hello.prompts.map((text) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      button.addEventListener("click", () => this.send(text));
      return button;
    });
    byId("wish-examples").replaceChildren(...examples);
    this.input.placeholder = hello.prompts[0] ?? "";
  }

  get isOpen(): boolean {
    return !this.form.hidden;
  }

  open(): void {
    this.form.hidden = false;
    this.line.hidden = true;
    this.input.value = "";
    this.recalled = this.history.length;
    this.input.focus({ preventScroll: true });
  }

  close(): void {
    if (!this.isOpen) return;
    this.form.hidden = true;
    this.onClosed();
  }

  answer(message: PromptMessage): void {
    const said = Object.values(message.attributes ?? {}).join(", ");
    this.line.textContent = message.error ? sentence(message.error) : `“${message.text}”: ${said}`;
    this.line.dataset["tone"] = message.error ? "refused" : "done";
    this.line.hidden = false;
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => (this.line.hidden = true), ANSWER_MS);
  }

  private send(text: string): void {
    const wish = text.trim();
    if (wish) {
      this.history.push(wish);
      this.history.splice(0, this.history.length - KEPT_WISHES);
      this.onWish(wish);
    }
    this.close();
  }

  /** Arrows go through earlier wishes; the page and the world hear none of what is typed. */
  private keyDown(event: KeyboardEvent): void {
    event.stopPropagation();
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") this.close();
    else if (event.key === "Enter" && event.repeat) event.preventDefault(); // still held from opening it
    else if (step) {
      this.recalled = Math.max(0, Math.min(this.history.length, this.recalled + step));
      this.input.value = this.history[this.recalled] ?? "";
    } else return;
    event.preventDefault();
  }
}
