import { beforeEach, expect, test, vi } from "vitest";
import { Api } from "./api";

const answers: Response[] = [];
const asked: { path: string; headers: Headers; method?: string; body?: unknown }[] = [];

beforeEach(() => {
  answers.length = asked.length = 0;
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async (path: string, wanted: RequestInit) => {
    asked.push({ ...wanted, path, headers: new Headers(wanted.headers) } as (typeof asked)[number]);
    const answer = answers.shift();
    if (!answer) throw new TypeError("network");
    return answer;
  });
});

const json = (status: number, body: object) => new Response(JSON.stringify(body), { status });

test("without a token pictures are fetched by the browser, with one by the page, once", async () => {
  expect(await new Api(null).picture("/a.jpg")).toBe("/a.jpg");
  expect(asked).toEqual([]);
  answers.push(new Response("jpeg"));
  const api = new Api("e.y.J");
  const [first, second] = await Promise.all([api.picture("/a.jpg"), api.picture("/a.jpg")]);
  expect(first).toMatch(/^blob:/);
  expect(second).toBe(first);
  expect(asked.map(({ headers }) => headers.get("authorization"))).toEqual(["Bearer e.y.J"]);
});

test("a file and a link are brought as what they are", async () => {
  answers.push(json(201, { resume: "one" }), json(201, { resume: "two" }));
  const api = new Api(null);
  expect(await api.bring("my world", new Blob(["saved"]))).toBe("one");
  expect(await api.bring("meadow", { replay: "eJy" })).toBe("two");
  expect(asked.map(({ path, method, headers }) => [path, method, headers.get("content-type")])).toEqual([
    ["/api/worlds/my%20world/sessions", "POST", "application/octet-stream"],
    ["/api/worlds/meadow/sessions", "POST", "application/json"],
  ]);
  expect(asked[1]!.body).toBe('{"replay":"eJy"}');
});

test("a world that wakes up is waited for", async () => {
  answers.push(json(503, { error: "warming up" }), json(201, { resume: "one" }));
  const brought = new Api(null).bring("meadow", { replay: "eJy" });
  await vi.advanceTimersByTimeAsync(1500);
  expect(await brought).toBe("one");
});

test("what is refused says why, as a sentence", async () => {
  answers.push(json(400, { error: "not a saved session" }));
  await expect(new Api(null).bring("meadow", new Blob())).rejects.toThrow("Not a saved session.");
  await expect(new Api(null).file("/x")).rejects.toThrow("The server does not answer.");
});

test("only doors that are shut are a refusal", async () => {
  const api = new Api("old");
  answers.push(json(401, { error: "this token has expired" }), json(429, { error: "too many" }), json(200, []));
  expect(await api.refusal()).toEqual({ kind: "locked", line: "This token has expired." });
  expect(await api.refusal()).toEqual({ kind: "refused", line: "Too many." });
  expect([await api.refusal(), await api.refusal()]).toEqual([null, null]); // it lets in; it does not answer
  answers.push(json(401, { error: "this wants an Authorization header" }));
  expect((await new Api(null).refusal())!.line).toMatch(/link that you were given/);
});
