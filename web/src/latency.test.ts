import { expect, test } from "vitest";
import { LatencyLog, PARTS, percentile, RateMeter } from "./latency";
import type { FrameMessage } from "./protocol";

const frame = (actionSeq: number, sentMs: number): FrameMessage => ({
  numSteps: 1,
  frameIndex: 0,
  actionSeq,
  sentMs,
  waitMs: 20,
  generateMs: 30,
  encodeMs: 1,
  jpeg: new Uint8Array(),
});

test("the parts of a sample add up to its total", () => {
  const log = new LatencyLog();
  log.sent(1, 98, 100);
  log.presented(frame(1, 100), { receivedMs: 155, drawnMs: 158, presentedMs: 170 });
  const [sample] = log.since(0);
  expect(sample).toMatchObject({ total: 72, input: 2, network: 4, wait: 20, decode: 3, present: 12 });
  expect(PARTS.reduce((sum, part) => sum + sample![part], 0)).toBeCloseTo(sample!.total);
});

test("an input that a newer one overtook waited longer, and counts", () => {
  const log = new LatencyLog();
  log.sent(1, 100, 100);
  log.sent(2, 110, 110);
  log.presented(frame(2, 110), { receivedMs: 165, drawnMs: 166, presentedMs: 170 });
  const [older, newer] = log.since(0);
  expect([older!.total, newer!.total]).toEqual([70, 60]);
  expect([older!.wait, newer!.wait]).toEqual([30, 20]);
  expect(older!.network).toBe(newer!.network);
});

test("an input counts once, with the first frame that answers it", () => {
  const log = new LatencyLog();
  log.sent(3, 100, 100);
  log.presented(frame(2, 90), { receivedMs: 150, drawnMs: 151, presentedMs: 152 });
  expect(log.since(0)).toEqual([]);
  log.presented(frame(3, 100), { receivedMs: 200, drawnMs: 201, presentedMs: 202 });
  log.presented(frame(3, 100), { receivedMs: 250, drawnMs: 251, presentedMs: 252 });
  expect(log.since(0).map((sample) => sample.total)).toEqual([102]);
});

test("the summary forgets what is older than its window", () => {
  const log = new LatencyLog();
  log.sent(1, 0, 0);
  log.presented(frame(1, 0), { receivedMs: 60, drawnMs: 61, presentedMs: 70 });
  expect(log.summary(1000)).toMatchObject({ p50: 70, p95: 70, count: 1 });
  expect(log.summary(60_000).p50).toBeNaN();
});

test("every sample is reported once, the newest where they are many", () => {
  const log = new LatencyLog();
  const show = (seq: number) => {
    log.sent(seq, 10 * seq, 10 * seq);
    log.presented(frame(seq, 10 * seq), { receivedMs: 10 * seq, drawnMs: 10 * seq, presentedMs: 10 * seq + 70.04 });
  };
  show(1);
  expect(log.report(100)).toEqual([70]);
  expect(log.report(105)).toEqual([]);
  for (let seq = 11; seq <= 50; seq++) show(seq);
  expect(log.report(1000)).toHaveLength(32);
});

test("percentiles are values that occurred", () => {
  const values = Array.from({ length: 100 }, (_, index) => 100 - index);
  expect([percentile(values, 0.5), percentile(values, 0.95), percentile([7], 0.95)]).toEqual([50, 95, 7]);
});

test("the rate of a stream that stopped is 0", () => {
  const meter = new RateMeter();
  for (let time = 0; time <= 3000; time += 50) meter.count(time);
  expect(meter.perSecond(3010)).toBeCloseTo(20);
  expect(meter.perSecond(4500)).toBe(0);
});
