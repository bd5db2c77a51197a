/** The messages of the socket, both ways: mirrors src/reverie/server/protocol.py. Binary, little endian. */

export interface ActionSpace {
  keys: string[];
  camera_limit: number;
  num_slots: number;
  keymap: Record<string, string>;
  /** What prompts can change, and the values it can have; left out by a world that takes none. */
  attributes?: Record<string, string[]>;
}

export interface Hello {
  protocol: number;
  world: string;
  width: number;
  height: number;
  fps: number;
  action_space: ActionSpace;
  steps: number[];
  /** False for a simulator that is played for comparison. */
  generated: boolean;
  starts: { name: string; title: string }[];
  /** Examples of what can be wished for. */
  prompts: string[];
}

export type SessionState = "warming" | "playing" | "idle" | "paused" | "queued" | "ended";

export interface StateMessage {
  state: SessionState;
  reason?: string;
  position?: number;
  expected_wait_s?: number;
}

/** The answer to a wish: what it set and the first frame that shows it, or why it did nothing. */
export interface PromptMessage {
  text: string;
  attributes?: Record<string, string>;
  frame_index?: number;
  error?: string;
}

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

export type ServerMessage =
  | { type: "frame"; frame: FrameMessage }
  | { type: "state"; state: StateMessage }
  | { type: "hello"; hello: Hello }
  | { type: "error"; line: string }
  | { type: "prompt"; prompt: PromptMessage };

export interface Action {
  /** Bit i is the i-th key of the action space. */
  keys: number;
  /** Degrees since the last action: to the right, and downwards. */
  yaw: number;
  pitch: number;
  /** From 1; 0 in a world without slots. */
  slot: number;
}

export const PROTOCOL_VERSION = 2;
export const CLOSE = {
  malformed: 4400,
  unknown: 4404,
  silent: 4408,
  oversized: 4413,
  flooding: 4429,
  failed: 4500,
  busy: 4503,
} as const;

const FRAME_HEADER_BYTES = 40;
const MAX_TURN_DEGREES = 1800;

export function packAction(action: Action, seq: number, sentMs: number): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(28));
  view.setUint8(0, 1);
  view.setUint8(2, action.slot);
  view.setUint32(4, action.keys, true);
  view.setUint32(8, seq, true);
  view.setFloat32(12, bounded(action.yaw), true);
  view.setFloat32(16, bounded(action.pitch), true);
  view.setFloat64(20, sentMs, true);
  return view.buffer;
}

export function packAck(frameIndex: number): ArrayBuffer {
  const view = new DataView(new ArrayBuffer(8));
  view.setUint8(0, 2);
  view.setUint32(4, frameIndex, true);
  return view.buffer;
}

export function packCommand(command: string, details: Record<string, unknown> = {}): ArrayBuffer {
  const text = new TextEncoder().encode(JSON.stringify({ command, ...details }));
  const bytes = new Uint8Array(1 + text.length);
  bytes[0] = 3;
  bytes.set(text, 1);
  return bytes.buffer;
}

/** The session begins anew from a JPEG of the world's size. */
export function packPicture(jpeg: ArrayBuffer): ArrayBuffer {
  const bytes = new Uint8Array(1 + jpeg.byteLength);
  bytes[0] = 4;
  bytes.set(new Uint8Array(jpeg), 1);
  return bytes.buffer;
}

export function parse(buffer: ArrayBuffer): ServerMessage {
  const view = new DataView(buffer);
  const type = view.getUint8(0);
  if (type === 1) return { type: "frame", frame: parseFrame(view, buffer) };
  const body = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 1)));
  if (type === 2) return { type: "state", state: body };
  if (type === 3) return { type: "hello", hello: body };
  if (type === 4) return { type: "error", line: body.error };
  if (type === 5) return { type: "prompt", prompt: body };
  throw new Error(`message type ${type}; this page is older or newer than its server: reload it`);
}

function parseFrame(view: DataView, buffer: ArrayBuffer): FrameMessage {
  return {
    numSteps: view.getUint8(1),
    frameIndex: view.getUint32(4, true),
    actionSeq: view.getUint32(8, true),
    sentMs: view.getFloat64(16, true),
    waitMs: view.getFloat32(24, true),
    generateMs: view.getFloat32(28, true),
    encodeMs: view.getFloat32(32, true),
    jpeg: new Uint8Array(buffer, FRAME_HEADER_BYTES),
  };
}

function bounded(degrees: number): number {
  return Math.max(-MAX_TURN_DEGREES, Math.min(MAX_TURN_DEGREES, degrees));
}
