/** Decides when an action is sent: at once for keys, at most every 8 ms for movement, and with every frame that arrives. */

import type { Controls } from "./controls";
import type { LatencyLog } from "./latency";
import { packAction, type FrameMessage } from "./protocol";

const MIN_GAP_MS = 8;

export class ActionSender {
  /** When the player last did something. */
  lastInputMs = 0;

  private seq = 0;
  private lastKeys = 0;
  private lastKeysSeq = 0;
  private lastSentMs = 0;
  private lastIndex = -1;
  private inputMs: number | null = null;
  private timer = 0;

  /** send: false if there is no connection right now. */
  constructor(
    private readonly controls: Controls,
    private readonly latency: LatencyLog,
    private readonly send: (message: ArrayBuffer) => boolean,
    private readonly periodMs: number,
  ) {
    controls.onInput = (eventMs, urgent) => this.input(eventMs, urgent);
  }

  /** A new connection counts from 1 again. */
  reset(): void {
    this.seq = 0;
    this.lastKeysSeq = 0;
    this.lastIndex = -1;
    this.latency.forget();
  }

  frameArrived(frame: FrameMessage): void {
    const since = frame.frameIndex - this.lastIndex;
    this.lastIndex = frame.frameIndex;
    // Frames that were skipped on the way still moved the world; a restart counts from 0 again.
    this.controls.framesArrived(since > 0 ? Math.min(since, 3) : 1, frame.actionSeq >= this.seq);
    this.flush();
  }

  /** Call about once a frame time while playing: held keys are repeated where no frames arrive to do it. */
  keepAlive(): void {
    if (performance.now() - this.lastSentMs > 1.5 * this.periodMs) this.flush();
  }

  private input(eventMs: number | null, urgent: boolean): void {
    if (eventMs !== null) {
      this.lastInputMs = eventMs;
      this.inputMs = Math.min(this.inputMs ?? Infinity, eventMs);
    }
    const rest = this.lastSentMs + MIN_GAP_MS - performance.now();
    if (urgent || rest <= 0) this.flush();
    else this.timer ||= window.setTimeout(() => this.flush(), rest);
  }

  private flush(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    const action = this.controls.read();
    const sentMs = performance.now();
    const seq = this.seq + 1;
    const inputMs = this.inputMs;
    this.inputMs = null;
    if (!this.send(packAction(action, seq, sentMs))) return;
    this.seq = seq;
    this.lastSentMs = sentMs;
    if (inputMs !== null && !this.endsATap(action.keys)) this.latency.sent(seq, inputMs, sentMs);
    if (action.keys !== this.lastKeys) {
      this.lastKeys = action.keys;
      this.lastKeysSeq = seq;
    }
  }

  /**
   * A key let go before any frame answered its press: the server shows the press in the next frame and the release after it.
   * The press is measured; the release would be measured against a frame that does not show it yet.
   */
  private endsATap(keys: number): boolean {
    return (this.lastKeys & ~keys) !== 0 && this.latency.isPending(this.lastKeysSeq);
  }
}
