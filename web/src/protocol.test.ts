import { expect, test } from "vitest";
import { packAck, packAction, packCommand, parse } from "./protocol";

const hex = (buffer: ArrayBuffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");

// The same bytes as in tests/server/test_protocol.py: what one side packs, the other reads.
test("an action is 28 bytes that the server reads", () => {
  const bytes = packAction({ keys: 0b101, yaw: 1.5, pitch: -2, slot: 3 }, 7, 1234.5);
  expect(hex(bytes)).toBe("0100030005000000070000000000c03f000000c000000000004a9340");
});

test("an acknowledgement carries the frame index", () => {
  expect(hex(packAck(258))).toBe("0200000002010000");
});

test("a command is JSON behind its type", () => {
  const bytes = new Uint8Array(packCommand({ command: "steps", steps: 4 }));
  expect(bytes[0]).toBe(3);
  expect(JSON.parse(new TextDecoder().decode(bytes.subarray(1)))).toEqual({ command: "steps", steps: 4 });
});

test("a frame's header is read where the server wrote it", () => {
  const text = "01020000050000000900000000000000000000000040594000002041000048420000003f00000000ffd8";
  const bytes = Uint8Array.from(text.match(/../g)!, (byte) => Number.parseInt(byte, 16));
  const message = parse(bytes.buffer);
  if (message.type !== "frame") throw new Error(message.type);
  const { jpeg, ...header } = message.frame;
  expect(header).toEqual({
    numSteps: 2,
    frameIndex: 5,
    actionSeq: 9,
    sentMs: 101,
    waitMs: 10,
    generateMs: 50,
    encodeMs: 0.5,
  });
  expect([...jpeg]).toEqual([0xff, 0xd8]);
});

test("a message of another version says to reload", () => {
  expect(() => parse(new Uint8Array([9, 123, 125]).buffer)).toThrow(/reload/);
});
