import { beforeEach, expect, test, vi } from "vitest";
import { Connection, type Trouble } from "./connection";
import { CloseCode } from "./protocol";

class FakeSocket {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static made: FakeSocket[] = [];
  readyState = FakeSocket.OPEN;
  sent: ArrayBuffer[] = [];
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(
    readonly address: string,
    readonly offered: string[],
  ) {
    FakeSocket.made.push(this);
  }

  send(message: ArrayBuffer): void {
    this.sent.push(message);
  }

  close(): void {
    this.readyState = 3;
  }

  hear(type: number, body: object): void {
    const text = new TextEncoder().encode(JSON.stringify(body));
    this.onmessage?.({ data: Uint8Array.from([type, ...text]).buffer });
  }

  greet(resume = "here", time_limit_s: number | null = null): void {
    this.hear(3, { protocol: 3, resume, time_limit_s });
  }

  drop(code = 1006, line = ""): void {
    if (line) this.hear(4, { error: line });
    this.onclose?.({ code, reason: "" });
  }
}

let timers: (() => void)[];
let checks: (() => void)[];
let nowMs = 0;

beforeEach(() => {
  FakeSocket.made = [];
  timers = [];
  checks = [];
  nowMs = 0;
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("performance", { now: () => nowMs });
  const setTimeout = (what: () => void) => timers.push(what);
  const setInterval = (what: () => void) => checks.push(what);
  vi.stubGlobal("window", Object.assign(new EventTarget(), { clearTimeout: () => {}, setTimeout, setInterval }));
  vi.stubGlobal("document", new EventTarget());
  vi.stubGlobal("location", { protocol: "http:", host: "127.0.0.1:8137" });
});

const latest = () => FakeSocket.made.at(-1)!;
const query = () => new URL(latest().address).searchParams;

function opened(token: string | null = null, refusal: Trouble | null = null) {
  const connection = new Connection(() => ({ start: "shore" }), token, async () => refusal);
  const troubles: Trouble[] = [];
  const hellos: boolean[] = [];
  connection.onTrouble = (trouble) => troubles.push(trouble);
  connection.onHello = (_, resumed) => hellos.push(resumed);
  connection.open();
  return { connection, troubles, hellos };
}

test("opening twice leaves one socket, and the first says nothing more", () => {
  const { connection, troubles } = opened();
  connection.open();
  const [first, second] = FakeSocket.made;
  expect([first!.readyState, second!.readyState]).toEqual([3, 1]);
  first!.drop();
  expect(troubles).toEqual([]);
});

test("nothing is sent before the server's HELLO, on any socket", () => {
  const { connection } = opened();
  connection.onHello = () => expect(connection.send(new ArrayBuffer(2))).toBe(true);
  for (let i = 0; i < 2; i++) {
    connection.open();
    expect(connection.send(new ArrayBuffer(1))).toBe(false);
    latest().greet();
    expect(latest().sent.map((message) => message.byteLength)).toEqual([2]);
    latest().drop();
  }
});

test("after a lost connection the same session is asked for", () => {
  const { troubles, hellos } = opened();
  expect(query().has("resume")).toBe(false);
  latest().greet("abc");
  latest().drop();
  expect(troubles.map(({ kind }) => kind)).toEqual(["lost"]);
  timers[0]!();
  expect([query().get("resume"), query().get("start")]).toEqual(["abc", "shore"]);
  latest().greet("abc");
  expect(hellos).toEqual([false, true]);
});

test("a session that is gone is not asked for again", () => {
  const { connection, troubles } = opened();
  connection.onGone = vi.fn();
  latest().greet("abc");
  latest().drop();
  connection.open();
  latest().drop(CloseCode.UNKNOWN, "this session is over");
  expect(connection.onGone).toHaveBeenCalledOnce();
  expect(connection.resume).toBeNull();
  expect(troubles).toHaveLength(1);
});

test("what there never was is refused, not tried again", () => {
  const { troubles } = opened();
  latest().drop(CloseCode.UNKNOWN, "no start 'moon'");
  expect(troubles).toEqual([{ kind: "refused", line: "no start 'moon'" }]);
  expect(timers).toEqual([]);
});

test("a session that goes on elsewhere is left there, and can be had back", () => {
  const { connection, troubles } = opened();
  latest().greet("abc");
  latest().drop(CloseCode.ELSEWHERE, "the session was continued elsewhere");
  expect(troubles.map(({ kind }) => kind)).toEqual(["elsewhere"]);
  expect(timers).toEqual([]);
  connection.open();
  expect(query().get("resume")).toBe("abc");
});

test("a time limit is final, the end of a server is not", () => {
  const limited = opened();
  latest().greet("abc", 60);
  latest().drop(CloseCode.OVER, "the time limit of 60 s is over");
  expect(limited.troubles).toEqual([{ kind: "over", line: "the time limit of 60 s is over" }]);
  expect([limited.connection.resume, timers.length]).toEqual([null, 0]);
  const { troubles } = opened();
  latest().greet();
  latest().drop(CloseCode.OVER, "the server is closing");
  expect(troubles).toMatchObject([{ kind: "lost", line: "the server is closing" }]);
  expect(timers).toHaveLength(1);
});

test("the token is offered beside the protocol, never in the address", () => {
  opened();
  expect(latest().offered).toEqual(["reverie"]);
  opened("e.y.J");
  expect(latest().offered).toEqual(["reverie", "token.e.y.J"]);
  expect(latest().address).not.toContain("e.y.J");
});

test("who is turned away at the door is told why, and does not knock again", async () => {
  const refusal: Trouble = { kind: "locked", line: "This token has expired." };
  const { troubles } = opened("old", refusal);
  latest().drop();
  await Promise.resolve();
  await Promise.resolve();
  expect([troubles, timers]).toEqual([[refusal], []]);
});

test("leaving tells the server, and the session is forgotten", () => {
  const { connection, troubles } = opened();
  latest().greet("abc");
  connection.leave();
  expect(new TextDecoder().decode(latest().sent[0]).slice(1)).toBe('{"command":"end"}');
  expect([connection.resume, latest().readyState, troubles]).toEqual([null, 3, []]);
});

test("a server that falls silent while it should draw is called again, a paused one is not", () => {
  opened();
  latest().greet("abc");
  latest().hear(2, { state: "paused" });
  nowMs = 60_000;
  checks[0]!();
  expect(FakeSocket.made).toHaveLength(1);
  latest().hear(2, { state: "playing" });
  nowMs += 7000;
  checks[0]!();
  expect(FakeSocket.made).toHaveLength(1);
  nowMs += 2000;
  checks[0]!();
  expect(FakeSocket.made).toHaveLength(2);
  expect(query().get("resume")).toBe("abc");
});
