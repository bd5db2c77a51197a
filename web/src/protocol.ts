/**
 * The messages of the socket, both ways, packed and parsed. Binary, little endian. Names, numbers and JSON bodies come from the
 * server's own source (protocol.generated.ts).
 */

import {
  ACK_LAYOUT,
  ACTION_LAYOUT,
  ClientMessage,
  FRAME_LAYOUT,
  MAX_TURN_DEGREES,
  ServerMessage,
  type AnswerBody,
  type Command,
  type HelloBody,
  type PromptBody,
  type StateBody,
} from "./protocol.generated";

export { CloseCode, PROTOCOL_VERSION, SUBPROTOCOL } from "./protocol.generated";
export type {
  ActionSpaceBody as ActionSpace,
  AnswerBody as Answer,
  Command,
  HelloBody as Hello,
  KeptName,
  PromptBody as PromptMessage,
  StateBody as StateMessage,
  StateName as SessionState,
} from "./protocol.generated";

export interface FrameMessage {
  numSteps: number;
  frameIndex: number;
  /** The newest action that the frame answers; 0 for none. */
  actionSeq: number;
  /** When that action was sent, on this page's clock. */
  sentMs: number;
  waitMs: number;
  generateMs: number;
  encodeMs: number;
  jpeg: Uint8Array<ArrayBuffer>;
}

export type Received =
  | { type: "frame"; frame: FrameMessage }
  | { type: "state"; state: StateBody }
  | { type: "hello"; hello: HelloBody }
  | { type: "error"; line: string }
  | { type: "prompt"; prompt: PromptBody }
  | { type: "answer"; answer: AnswerBody };

export interface Action {
  /** Bit i is the i-th key of the action space. */
  keys: number;
  /** Degrees since the last action: to the right, and downwards. */
  yaw: number;
  pitch: number;
  /** From 1; 0 in a world without slots. */
  slot: number;
}

export function packAction(action: Action, seq: number, sentMs: number): ArrayBuffer {
  const at = ACTION_LAYOUT;
  const view = new DataView(new ArrayBuffer(at.bytes));
  view.setUint8(at.type, ClientMessage.ACTION);
  view.setUint8(at.slot, action.slot);
  view.setUint32(at.keys, action.keys, true);
  view.setUint32(at.seq, seq, true);
  view.setFloat32(at.yaw_deg, bounded(action.yaw), true);
  view.setFloat32(at.pitch_deg, bounded(action.pitch), true);
  view.setFloat64(at.client_time_ms, sentMs, true);
  return view.buffer;
}

export function packAck(frameIndex: number): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(ACK_LAYOUT.bytes));
  view.setUint8(ACK_LAYOUT.type, ClientMessage.ACK);
  view.setUint32(ACK_LAYOUT.frame_index, frameIndex, true);
  return view.buffer;
}

export function packCommand(command: Command): ArrayBuffer {
  return typed(ClientMessage.COMMAND, new TextEncoder().encode(JSON.stringify(command)));
}

/** The session begins anew from a JPEG of the world's size. */
export function packPicture(jpeg: ArrayBuffer): ArrayBuffer {
  return typed(ClientMessage.PICTURE, new Uint8Array(jpeg));
}

export function parse(buffer: ArrayBuffer): Received {
  const view = new DataView(buffer);
  const type = view.getUint8(0);
  if (type === ServerMessage.FRAME) return { type: "frame", frame: parseFrame(view, buffer) };
  const body = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 1)));
  if (type === ServerMessage.STATE) return { type: "state", state: body };
  if (type === ServerMessage.HELLO) return { type: "hello", hello: body };
  if (type === ServerMessage.ERROR) return { type: "error", line: body.error };
  if (type === ServerMessage.PROMPT) return { type: "prompt", prompt: body };
  if (type === ServerMessage.ANSWER) return { type: "answer", answer: body };
  throw new Error(`message type ${type}; this page is older or newer than its server: reload it`);
}

function typed(type: number, body: Uint8Array): ArrayBuffer {
  const bytes = new Uint8Array(1 + body.length);
  bytes[0] = type;
  bytes.set(body, 1);
  return bytes.buffer;
}

function parseFrame(view: DataView, buffer: ArrayBuffer): FrameMessage {
  const at = FRAME_LAYOUT;
  return {
    numSteps: view.getUint8(at.num_steps),
    frameIndex: view.getUint32(at.frame_index, true),
    actionSeq: view.getUint32(at.action_seq, true),
    sentMs: view.getFloat64(at.client_time_ms, true),
    waitMs: view.getFloat32(at.wait_ms, true),
    generateMs: view.getFloat32(at.generate_ms, true),
    encodeMs: view.getFloat32(at.encode_ms, true),
    jpeg: new Uint8Array(buffer, at.bytes),
  };
}

function bounded(degrees: number): number {
  return Math.max(-MAX_TURN_DEGREES, Math.min(MAX_TURN_DEGREES, degrees));
}
