/** Counts the frames that were shown, and which of them differ from the one before. */

import { RateMeter } from "./latency";
import type { FrameMessage } from "./protocol";

export class FrameCounter {
  readonly painted = new RateMeter();
  private readonly different = new RateMeter();
  private numShown = 0;
  private numDifferent = 0;
  private firstMs: number | null = null;
  private last: FrameMessage | null = null;
  private lastHash = 0;

  count(frame: FrameMessage, presentedMs: number): void {
    this.firstMs ??= presentedMs;
    this.numShown += 1;
    this.painted.count(presentedMs);
    const hash = fingerprint(frame.jpeg);
    if (hash !== this.lastHash) {
      this.numDifferent += 1;
      this.different.count(presentedMs);
    }
    this.lastHash = hash;
    this.last = frame;
  }

  /** Another connection: its frames count from elsewhere. */
  restart(): void {
    this.last = null;
  }

  stats(nowMs: number): Record<string, unknown> {
    return {
      fps: this.painted.perSecond(nowMs),
      differentFps: this.different.perSecond(nowMs),
      framesShown: this.numShown,
      differentFrames: this.numDifferent,
      firstFrameMs: this.firstMs,
      frameIndex: this.last?.frameIndex ?? null,
      numSteps: this.last?.numSteps ?? null,
    };
  }
}

/** Tells whether two pictures differ: FNV-1a over the JPEG. */
function fingerprint(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < bytes.length; index++) hash = Math.imul(hash ^ bytes[index]!, 0x01000193);
  return hash;
}
