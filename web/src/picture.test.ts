import { describe, expect, it } from "vitest";
import { middle } from "./picture";

describe("the middle of a picture", () => {
  it("is all of it where the shapes agree, however large", () => {
    expect(middle(1600, 960, 160, 96)).toEqual({ x: 0, y: 0, width: 1600, height: 960 });
    expect(middle(20, 12, 160, 96)).toEqual({ x: 0, y: 0, width: 20, height: 12 });
  });

  it("leaves out as much on either side", () => {
    expect(middle(400, 100, 200, 100)).toEqual({ x: 100, y: 0, width: 200, height: 100 });
    expect(middle(100, 400, 200, 100)).toEqual({ x: 0, y: 175, width: 100, height: 50 });
  });
});
