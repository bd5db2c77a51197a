// Written by scripts/protocol_types.py from protocol.py and messages.py: change that instead.

export const PROTOCOL_VERSION = 3;
export const MAX_MESSAGE_BYTES = 4096;
export const MAX_PICTURE_BYTES = 262144;
export const MAX_TURN_DEGREES = 3600;
export const SUBPROTOCOL = "reverie";

/** First byte of what a client sends. */
export const ClientMessage = {
  ACTION: 1,
  ACK: 2,
  COMMAND: 3,
  PICTURE: 4,
} as const;
export type ClientMessage = (typeof ClientMessage)[keyof typeof ClientMessage];

/** First byte of what the server sends. */
export const ServerMessage = {
  FRAME: 1,
  STATE: 2,
  HELLO: 3,
  ERROR: 4,
  PROMPT: 5,
  ANSWER: 6,
} as const;
export type ServerMessage = (typeof ServerMessage)[keyof typeof ServerMessage];

/** Why the server closes a socket. The last three digits follow HTTP where it has the idea. */
export const CloseCode = {
  MALFORMED: 4400,
  UNAUTHORIZED: 4401,
  FORBIDDEN: 4403,
  UNKNOWN: 4404,
  SILENT: 4408,
  ELSEWHERE: 4409,
  OVER: 4410,
  OVERSIZED: 4413,
  FLOODING: 4429,
  FAILED: 4500,
  BUSY: 4503,
} as const;
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode];

/** Bytes from the start of each field; all numbers are little endian. */
export const ACTION_LAYOUT = { type: 0, flags: 1, slot: 2, keys: 4, seq: 8, yaw_deg: 12, pitch_deg: 16, client_time_ms: 20, bytes: 28 } as const;
export const ACK_LAYOUT = { type: 0, frame_index: 4, bytes: 8 } as const;
export const FRAME_LAYOUT = { type: 0, num_steps: 1, frame_index: 4, action_seq: 8, client_time_ms: 16, wait_ms: 24, generate_ms: 28, encode_ms: 32, bytes: 40 } as const;

export const COMMANDS = ["end", "fork", "pause", "photon", "prompt", "restart", "resume", "rewind", "save", "share", "start", "steps"] as const;
export type CommandName = (typeof COMMANDS)[number];

export type StateName = "warming" | "queued" | "playing" | "idle" | "paused" | "ended";

export type KeptName = "save" | "fork" | "share";

/** What a world can be told. Bit i of an ACTION's keys is keys[i]; num_slots and camera_limit (degrees per frame) are 0 in a world without. attributes: what prompts can change, and the values it can have, the usual one first; left out by a world that takes none. */
export interface ActionSpaceBody {
  keys: string[];
  camera_limit: number;
  num_slots: number;
  keymap: Record<string, string>;
  pitch_limits: number[];
  attributes?: Record<string, string[]>;
}

/** A place where a session can begin. */
export interface StartBody {
  name: string;
  title: string;
}

/** What a client must know to play a world. steps: passes per frame that it was trained for. generated: false for a simulator that is played for comparison. prompts: examples of what can be wished for; a world without any takes none. */
export interface WorldBody {
  world: string;
  width: number;
  height: number;
  fps: number;
  action_space: ActionSpaceBody;
  steps: number[];
  generated: boolean;
  prompts: string[];
  starts: StartBody[];
}

/** HELLO. resume: comes back to this session, within resume_s of a lost connection. rewind_s: how far back one can go. time_limit_s: of play, null for none. */
export interface HelloBody {
  world: string;
  width: number;
  height: number;
  fps: number;
  action_space: ActionSpaceBody;
  steps: number[];
  generated: boolean;
  prompts: string[];
  starts: StartBody[];
  protocol: number;
  resume: string;
  resume_s: number;
  rewind_s: number;
  time_limit_s: number | null;
}

/** STATE. reason: why it ended or paused by itself. position, from 1, and expected_wait_s: in the queue. replay: a replay still runs. left_s: until the time limit, where that is near. */
export interface StateBody {
  state: "warming" | "queued" | "playing" | "idle" | "paused" | "ended";
  reason?: string;
  position?: number;
  expected_wait_s?: number;
  replay?: boolean;
  left_s?: number;
}

/** PROMPT, the answer to a wish: the attributes that it set and the first frame that shows them, or an error, one line that says why it did nothing. */
export interface PromptBody {
  text: string;
  attributes?: Record<string, string>;
  frame_index?: number;
  error?: string;
}

/** ANSWER. To save: url, where the file is fetched from, once and soon, its name and bytes. To fork: resume, the token of the new session. To share: replay, a link. Or else an error. */
export interface AnswerBody {
  command: "save" | "fork" | "share";
  url?: string;
  name?: string;
  bytes?: number;
  resume?: string;
  replay?: string;
  error?: string;
}

/** ERROR: one line for the player; the socket closes after it. */
export interface ErrorBody {
  error: string;
}

/** A COMMAND that needs no more than its name. */
export interface PlainCommand {
  command: "pause" | "resume" | "save" | "fork" | "share" | "end";
}

/** Passes per frame from now on, one of HELLO's steps. */
export interface StepsCommand {
  command: "steps";
  steps: number;
}

/** Begin again: at the start of that name, or where the session began; with that seed, or one that is drawn. */
export interface BeginCommand {
  command: "restart" | "start";
  name?: string;
  seed?: number;
}

/** Go back by so many seconds, as far as is remembered. */
export interface RewindCommand {
  command: "rewind";
  seconds: number;
}

/** A wish in words. */
export interface PromptCommand {
  command: "prompt";
  text: string;
}

/** What the client measured from an action to the picture that answers it, milliseconds; up to 32 at a time. */
export interface PhotonCommand {
  command: "photon";
  ms: number[];
}

/** The JSON of COMMAND. */
export type Command = PlainCommand | StepsCommand | BeginCommand | RewindCommand | PromptCommand | PhotonCommand;
