import { describe, expect, it } from "vitest";
import { rate, type Sample } from "./admin-panels";
import { nearest, niceTop, runs, stack } from "./admin-plot";

const sample = (ms: number, uptime_s: number, num_late: number): Sample =>
  ({ ms, status: { uptime_s, frames: { num_late } } }) as Sample;
const late = (now: Sample, before: Sample | null) => rate(now, before, (status) => status.frames.num_late);

describe("the dashboard's plots", () => {
  it("end at a round number", () => {
    expect([0, 0.03, 1, 1.01, 4, 7, 430].map(niceTop)).toEqual([1, 0.03, 1, 1.5, 4, 8, 500]);
  });

  it("put areas on top of each other, and leave out what nobody knows", () => {
    const series = (values: (number | null)[]) => ({ name: "", color: "", values });
    expect(stack([series([1, 2, null]), series([10, null, null])])).toEqual([
      [1, 2, null],
      [11, 2, null],
    ]);
  });

  it("have a gap where the server did not answer", () => {
    expect(runs([0, 1000, 2000, 30_000, 31_000], [1, 1, null, 1, 1])).toEqual([
      [0, 2],
      [3, 5],
    ]);
    expect(runs([0, 1000, 60_000], [1, 1, 1])).toEqual([
      [0, 2],
      [2, 3],
    ]);
  });

  it("find the value under the pointer", () => {
    expect(nearest([], 5)).toBe(-1);
    expect(nearest([0, 1000, 2000], 1400)).toBe(1);
  });

  it("make rates of counts, but not over a restart of the server", () => {
    expect(late(sample(2000, 9, 30), sample(0, 7, 10))).toBe(10);
    expect(late(sample(2000, 1, 3), sample(0, 7, 10))).toBeNull();
    expect(late(sample(2000, 1, 3), null)).toBeNull();
  });
});
