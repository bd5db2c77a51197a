import { expect, test } from "vitest";
import { helpRows, rewindKeys } from "./keymap";

const space = (keymap: Record<string, string>) => ({ keys: ["reload"], camera_limit: 0, num_slots: 0, keymap, pitch_limits: [-90, 90] });
const page = (keymap: Record<string, string>) => helpRows(space(keymap)).find(({ group }) => group === "Page")!.rows;

test("keys that go back in time yield to the world's own", () => {
  expect(rewindKeys(space({}))).toEqual(["backspace", "r"]);
  expect(rewindKeys(space({ r: "reload" }))).toEqual(["backspace"]);
  expect(page({ r: "reload" })).toContainEqual(["A few seconds back", ["Backspace"]]);
  expect(page({ r: "reload", backspace: "reload" }).map(([what]) => what)).not.toContain("A few seconds back");
});
