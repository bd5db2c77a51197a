import { expect, test } from "vitest";
import { forkAddress, readAddress, replayAddress, Tab } from "./address";

class FakeStorage {
  private readonly items = new Map<string, string>();
  getItem = (key: string) => this.items.get(key) ?? null;
  setItem = (key: string, value: string) => void this.items.set(key, value);
  removeItem = (key: string) => void this.items.delete(key);
}

const tab = () => new Tab(new FakeStorage() as unknown as Storage);

test("tokens are read, and leave the address", () => {
  const address = readAddress("?start=shore", "#token=e.y.J&resume=abc&world=meadow");
  expect(address).toMatchObject({ token: "e.y.J", resume: "abc", replay: null, rest: "?start=shore#world=meadow" });
  expect(address.wishes).toEqual({ start: "shore", world: "meadow" });
});

test("an address without anything asks for nothing", () => {
  expect(readAddress("", "")).toEqual({ wishes: {}, token: null, resume: null, replay: null, rest: "" });
});

test("a shared link is read as it was made, and stays in the address for a reload", () => {
  const link = new URL(replayAddress("https://example.org", "my world", "eJy-_0"));
  const address = readAddress(link.search, link.hash);
  expect([address.wishes.world, address.replay]).toEqual(["my world", "eJy-_0"]);
  expect(readAddress("", address.rest)).toEqual(address);
  expect(link.search).toBe(""); // what is behind the # never reaches a server
});

test("a fork's address names the session only", () => {
  expect(readAddress("", forkAddress("a-b_c").slice(1))).toMatchObject({ resume: "a-b_c", rest: "" });
});

test("a tab keeps its token, and takes a fresher one", () => {
  const mine = tab();
  expect([mine.token(null), mine.token("one"), mine.token(null), mine.token("two")]).toEqual([null, "one", "one", "two"]);
});

test("a tab goes on with a session only at the address that it was had at", () => {
  const mine = tab();
  const visit = { address: "?start=shore", resume: "abc", played: true };
  mine.remember(visit);
  expect(mine.recall("?start=shore")).toEqual(visit);
  expect(mine.recall("?start=ridge")).toBeNull();
  mine.forget();
  expect(mine.recall("?start=shore")).toBeNull();
});
