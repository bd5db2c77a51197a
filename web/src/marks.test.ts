import { expect, test } from "vitest";
import { clock } from "./marks";
import { size } from "./keeper";

test("what is left is told in minutes and seconds, never less than nothing", () => {
  expect([clock(65), clock(59.2), clock(0), clock(-3)]).toEqual(["1:05", "1:00", "0:00", "0:00"]);
});

test("files are as large as people say", () => {
  expect([size(12), size(47_300), size(3_140_000)]).toEqual(["1 KB", "47 KB", "3.1 MB"]);
});
