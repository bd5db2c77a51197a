/** One line about the connection, shown and read out: connecting, warming, waiting, lost. */

import { byId } from "./menu";
import type { Trouble } from "./connection";
import type { StateMessage } from "./protocol";

const HINT_MS = 6000;

export class Notice {
  /** Whoever waits in line had a place before. */
  hadPlace = false;

  private timer = 0;

  constructor(onRetry: () => void) {
    byId("notice-retry").addEventListener("click", onRetry);
  }

  /** Says it after a while, if nothing else happened until then: most connections take a blink. */
  connecting(): void {
    this.after(700, () => this.show("Connecting"));
  }

  state(message: StateMessage): void {
    this.clear();
    if (message.state === "warming") this.after(250, () => this.show("The world is waking up"));
    if (message.state === "queued") {
      const kept = this.hadPlace ? ". You go before newcomers" : "";
      this.show(`All places are taken. You are ${nth(message.position ?? 1)} in line${wait(message.expected_wait_s)}${kept}`);
    }
  }

  trouble(trouble: Trouble): void {
    this.clear();
    if (trouble.kind !== "lost") {
      const retry = { refused: "Try again", released: "Continue", locked: "", elsewhere: "", over: "" }[trouble.kind];
      this.show(sentence(trouble.line), "trouble", retry);
      return;
    }
    const endMs = performance.now() + trouble.retryMs;
    const count = () => {
      const seconds = Math.max(1, Math.ceil((endMs - performance.now()) / 1000));
      const line = trouble.line ? sentence(trouble.line) : "Disconnected.";
      this.show(`${line} Trying again in ${seconds} s`, "trouble", "Try now");
    };
    count();
    this.timer = window.setInterval(count, 1000);
  }

  /** The player left. */
  left(): void {
    this.clear();
    this.show("You left, and everything of this session is gone.");
  }

  clear(): void {
    window.clearInterval(this.timer);
    byId("notice").hidden = true;
    byId("notice-text").textContent = "";
  }

  private after(delayMs: number, what: () => void): void {
    window.clearInterval(this.timer);
    this.timer = window.setTimeout(what, delayMs);
  }

  private show(text: string, tone: "calm" | "trouble" = "calm", retry = ""): void {
    byId("notice").hidden = false;
    byId("notice").dataset.tone = tone;
    // Read out when it changes, not at every second that passes.
    if (byId("notice-text").textContent !== text) byId("notice-text").textContent = text;
    byId("notice-retry").hidden = !retry;
    byId("notice-retry").textContent = retry;
  }
}

/** A line over the picture, for a while. */
export class Hint {
  private timer = 0;

  say(text: string): void {
    const hint = byId("hint");
    hint.textContent = text;
    hint.classList.add("shown");
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => hint.classList.remove("shown"), HINT_MS);
  }
}

/** A line of the server as a sentence. */
export function sentence(line: string): string {
  const text = line.charAt(0).toUpperCase() + line.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function nth(position: number): string {
  const suffix = { 1: "st", 2: "nd", 3: "rd" }[position % 100 > 10 && position % 100 < 14 ? 0 : position % 10];
  return `${position}${suffix ?? "th"}`;
}

/** What is known of how long it takes. */
function wait(seconds: number | undefined): string {
  if (seconds === undefined) return "";
  return seconds < 90 ? ", about a minute" : `, about ${Math.round(seconds / 60)} minutes`;
}
