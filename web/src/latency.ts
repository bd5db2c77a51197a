/**
 * Action-to-photon: from an input event's own timestamp to the paint that shows the frame which answers it.
 *
 * Every input counts, also those that a newer one overtook: the frame that answers the newer one answers them too, and their
 * way was longer. The parts of a sample add up to its total:
 *
 *   input     event to message: dispatch by the browser, coalescing of mouse movement
 *   network   both ways, with everything between socket and page that nobody else counts
 *   wait      at the server until the engine's next tick (and for a newer action, if one overtook this)
 *   generate  the networks
 *   encode    picture to JPEG, with the hop between threads
 *   decode    JPEG to bitmap and canvas
 *   present   canvas to the end of the paint (see screen.ts); the display's own delay comes on top and cannot be seen from here
 */

import type { FrameMessage } from "./protocol";

export const PARTS = ["input", "network", "wait", "generate", "encode", "decode", "present"] as const;
export type Part = (typeof PARTS)[number];
export type Sample = { total: number } & Record<Part, number>;

/** When a frame was where, on the page's clock. */
export interface FrameTimes {
  receivedMs: number;
  drawnMs: number;
  presentedMs: number;
}

interface Pending {
  seq: number;
  inputMs: number;
  sentMs: number;
}

const KEPT = 8192;
const WINDOW_MS = 15_000;
const MAX_REPORTED = 32;

export class LatencyLog {
  private pending: Pending[] = [];
  private samples: { atMs: number; sample: Sample }[] = [];
  private reportedMs = 0;

  /** An action was sent; inputMs is the time of the oldest input event that it carries. */
  sent(seq: number, inputMs: number, sentMs: number): void {
    // Where nothing answers for long (a pause), old inputs are not waited for.
    if (this.pending.length >= 1024) this.pending.shift();
    this.pending.push({ seq, inputMs, sentMs });
  }

  isPending(seq: number): boolean {
    return this.pending.some((pending) => pending.seq === seq);
  }

  /** What was sent so far will not be answered: the connection or the run ended, or play pauses. */
  forget(): void {
    this.pending = [];
  }

  /** A frame was presented: one sample for every input that it is the first to answer. */
  presented(frame: FrameMessage, times: FrameTimes): void {
    while (this.pending[0] && this.pending[0].seq <= frame.actionSeq) {
      const sample = measure(this.pending.shift()!, frame, times);
      this.samples.push({ atMs: times.presentedMs, sample });
    }
    if (this.samples.length > KEPT) this.samples.splice(0, this.samples.length - KEPT);
  }

  /** All that are kept, newest last: for benchmarks. */
  since(atMs: number): Sample[] {
    return this.samples.filter((kept) => kept.atMs > atMs).map((kept) => kept.sample);
  }

  last(count: number): Sample[] {
    return this.samples.slice(-count).map((kept) => kept.sample);
  }

  /** Totals that were not reported yet, the newest where they are many; in tenths of a millisecond. */
  report(nowMs: number): number[] {
    const fresh = this.since(this.reportedMs).slice(-MAX_REPORTED);
    this.reportedMs = nowMs;
    return fresh.map((sample) => Math.round(10 * sample.total) / 10);
  }

  /** Median and 95th percentile of the last 15 s, with the median of each part. */
  summary(nowMs: number): { p50: number; p95: number; count: number; parts: Record<Part, number> } {
    const recent = this.since(nowMs - WINDOW_MS);
    const totals = recent.map((sample) => sample.total);
    const parts = Object.fromEntries(
      PARTS.map((part) => [part, percentile(recent.map((sample) => sample[part]), 0.5)]),
    ) as Record<Part, number>;
    return { p50: percentile(totals, 0.5), p95: percentile(totals, 0.95), count: recent.length, parts };
  }
}

function measure(pending: Pending, frame: FrameMessage, times: FrameTimes): Sample {
  const server = frame.waitMs + frame.generateMs + frame.encodeMs;
  return {
    total: times.presentedMs - pending.inputMs,
    input: pending.sentMs - pending.inputMs,
    network: times.receivedMs - frame.sentMs - server,
    wait: frame.waitMs + (frame.sentMs - pending.sentMs),
    generate: frame.generateMs,
    encode: frame.encodeMs,
    decode: times.drawnMs - times.receivedMs,
    present: times.presentedMs - times.drawnMs,
  };
}

/** The smallest value that at least this share of the values does not exceed; NaN of none. */
export function percentile(values: number[], share: number): number {
  if (values.length === 0) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
}

/** Events per second over the last two seconds. */
export class RateMeter {
  private times: number[] = [];

  count(atMs: number): void {
    this.times.push(atMs);
    while (this.times[0]! < atMs - 2000) this.times.shift();
  }

  /** 0 when nothing happened for a second. */
  perSecond(nowMs: number): number {
    const first = this.times[0];
    const last = this.times.at(-1);
    if (first === undefined || last === undefined || last === first || nowMs - last > 1000) return 0;
    return (1000 * (this.times.length - 1)) / (last - first);
  }
}
