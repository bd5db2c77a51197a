import { beforeEach, expect, test, vi } from "vitest";
import { Connection } from "./connection";

class FakeSocket {
  static readonly OPEN = 1;
  static made: FakeSocket[] = [];
  readyState = FakeSocket.OPEN;
  sent: ArrayBuffer[] = [];
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;

  constructor() {
    FakeSocket.made.push(this);
  }

  send(message: ArrayBuffer): void {
    this.sent.push(message);
  }

  close(): void {
    this.readyState = 3;
  }

  greet(): void {
    const text = new TextEncoder().encode(JSON.stringify({ protocol: 2 }));
    this.onmessage?.({ data: Uint8Array.from([3, ...text]).buffer });
  }
}

beforeEach(() => {
  FakeSocket.made = [];
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("window", Object.assign(new EventTarget(), { clearTimeout, setTimeout: () => 1 }));
  vi.stubGlobal("document", new EventTarget());
  vi.stubGlobal("location", { protocol: "http:", host: "127.0.0.1:8137" });
});

test("opening twice leaves one socket, and the first says nothing more", () => {
  const connection = new Connection(() => ({}));
  const troubles: string[] = [];
  connection.onTrouble = ({ kind }) => troubles.push(kind);
  connection.open();
  connection.open();
  const [first, second] = FakeSocket.made;
  expect([first!.readyState, second!.readyState]).toEqual([3, 1]);
  first!.onclose?.({ code: 1006 });
  expect(troubles).toEqual([]);
});

test("nothing is sent before the server's HELLO, on any socket", () => {
  const connection = new Connection(() => ({}));
  connection.onHello = () => expect(connection.send(new ArrayBuffer(2))).toBe(true);
  for (let i = 0; i < 2; i++) {
    connection.open();
    const socket = FakeSocket.made.at(-1)!;
    expect(connection.send(new ArrayBuffer(1))).toBe(false);
    socket.greet();
    expect(socket.sent.map((message) => message.byteLength)).toEqual([2]);
    socket.onclose!({ code: 1006 });
  }
});
