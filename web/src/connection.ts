/** The socket, which comes back by itself, to the session that it had. */

import type { Wishes } from "./address";
import {
  CloseCode,
  packCommand,
  parse,
  PROTOCOL_VERSION,
  SUBPROTOCOL,
  type Answer,
  type FrameMessage,
  type Hello,
  type PromptMessage,
  type StateMessage,
} from "./protocol";

export type Trouble =
  /** Comes back in retryMs. */
  | { kind: "lost"; line: string; retryMs: number }
  /** Trying again at once would not help: the player decides. */
  | { kind: "refused"; line: string }
  /** Not with this token, or not without one: there is nothing that the player could try. */
  | { kind: "locked"; line: string }
  /** Nobody was here for long, and the place was given back. */
  | { kind: "released"; line: string }
  /** Another page goes on with the session; it can be had back. */
  | { kind: "elsewhere"; line: string }
  /** For good, as after a time limit. */
  | { kind: "over"; line: string };

export const LOCKED_LINE = "This server asks for a token: open the link that you were given.";
const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 4000;
/** Without a sign of the server where there should be one: a network can vanish without a word. */
const SILENT_MS = 8000;
const CHECK_MS = 1000;
const SLOW_RETRY: number[] = [CloseCode.FAILED, CloseCode.BUSY];
const ENDINGS: Partial<Record<number, { kind: Exclude<Trouble["kind"], "lost">; line: string }>> = {
  [CloseCode.MALFORMED]: { kind: "refused", line: "The server refused." },
  [CloseCode.UNKNOWN]: { kind: "refused", line: "The server refused." },
  [CloseCode.OVERSIZED]: { kind: "refused", line: "The server refused." },
  [CloseCode.FLOODING]: { kind: "refused", line: "The server refused." },
  [CloseCode.UNAUTHORIZED]: { kind: "locked", line: LOCKED_LINE },
  [CloseCode.FORBIDDEN]: { kind: "refused", line: "You may not play here." },
  [CloseCode.SILENT]: { kind: "released", line: "" },
  [CloseCode.ELSEWHERE]: { kind: "elsewhere", line: "" },
  [CloseCode.OVER]: { kind: "over", line: "The session is over." },
};

/** wishes: how a new session begins. whyRefused: asks why the server does not open a socket; null where it would. */
export class Connection {
  onConnecting: () => void = () => {};
  /** resumed: it is the session that was asked for, not a new one. */
  onHello: (hello: Hello, resumed: boolean) => void = () => {};
  onState: (state: StateMessage) => void = () => {};
  onFrame: (frame: FrameMessage, receivedMs: number) => void = () => {};
  onPrompt: (message: PromptMessage) => void = () => {};
  onAnswer: (message: Answer) => void = () => {};
  onTrouble: (trouble: Trouble) => void = () => {};
  /** The session that was to be resumed is not there any more; `resume` is empty again, and nothing is open. */
  onGone: () => void = () => {};

  /** The session to go on with: what the next socket asks for. */
  resume: string | null = null;

  private socket: WebSocket | null = null;
  private retryMs = FIRST_RETRY_MS;
  private timer = 0;
  private line = "";
  /** This socket's HELLO has come: before it, whoever sends still counts on from the last socket. */
  private greeted = false;
  private asked: string | null = null;
  private isTimeLimited = false;
  private isDrawing = false;
  private heardMs = 0;
  private heardAnything = false;
  private numOpened = 0;

  constructor(
    private readonly wishes: () => Wishes,
    private readonly token: string | null = null,
    private readonly whyRefused: () => Promise<Trouble | null> = async () => null,
  ) {
    // A laptop that wakes up, or a tab that comes back, need not wait for the timer.
    window.addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
    window.setInterval(() => this.check(), CHECK_MS);
  }

  open(): void {
    this.abandon();
    this.line = "";
    this.greeted = this.isDrawing = this.heardAnything = false;
    this.numOpened += 1;
    this.asked = this.resume;
    this.heardMs = performance.now();
    this.onConnecting();
    const query = new URLSearchParams(Object.entries(this.wishes()).filter(([, value]) => value));
    if (this.asked) query.set("resume", this.asked);
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const offered = this.token ? [SUBPROTOCOL, `token.${this.token}`] : [SUBPROTOCOL];
    const socket = new WebSocket(`${scheme}://${location.host}/ws?${query}`, offered);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.receive(event.data);
    socket.onclose = (event) => this.closed(event.code, event.reason);
    this.socket = socket;
  }

  retryNow(): void {
    if (this.timer) this.open();
  }

  send(message: ArrayBuffer): boolean {
    if (!this.greeted || this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(message);
    return true;
  }

  /** Ends the session: nothing of it is kept for a return. */
  leave(): void {
    this.send(packCommand({ command: "end" }));
    this.resume = null;
    this.numOpened += 1;
    this.abandon();
  }

  /** Two clicks must not take two places in the world. */
  private abandon(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  private check(): void {
    const isDue = this.isDrawing || this.socket?.readyState === WebSocket.CONNECTING;
    if (isDue && performance.now() - this.heardMs > SILENT_MS) this.open();
  }

  private receive(data: ArrayBuffer): void {
    const receivedMs = (this.heardMs = performance.now());
    this.heardAnything = true;
    const message = parse(data);
    if (message.type === "frame") this.onFrame(message.frame, receivedMs);
    else if (message.type === "state") {
      this.isDrawing = message.state.state === "playing" || message.state.state === "idle";
      this.onState(message.state);
    } else if (message.type === "prompt") this.onPrompt(message.prompt);
    else if (message.type === "answer") this.onAnswer(message.answer);
    else if (message.type === "error") this.line = message.line;
    else this.welcome(message.hello);
  }

  private welcome(hello: Hello): void {
    if (hello.protocol !== PROTOCOL_VERSION) {
      this.line = "The server was updated while this page was open. Reload the page.";
      this.socket?.close(CloseCode.MALFORMED);
      return;
    }
    this.retryMs = FIRST_RETRY_MS;
    this.greeted = true;
    this.resume = hello.resume;
    this.isTimeLimited = hello.time_limit_s !== null;
    this.onHello(hello, this.asked !== null);
  }

  private closed(code: number, reason: string): void {
    this.socket = null;
    this.isDrawing = false;
    this.line ||= reason;
    if (code === CloseCode.UNKNOWN && this.asked) {
      this.resume = null;
      this.onGone();
      return;
    }
    const ending = ENDINGS[code];
    // A server that closes comes back; whose time is over does not try again.
    if (ending && (code !== CloseCode.OVER || this.isTimeLimited)) {
      if (ending.kind === "over") this.resume = null;
      this.onTrouble({ kind: ending.kind, line: this.line || ending.line });
      return;
    }
    // Whoever may not come in is turned away before there is a socket, and a browser does not say why.
    if (!this.heardAnything) void this.askWhy(code);
    else this.retrySoon(code);
  }

  private async askWhy(code: number): Promise<void> {
    const opened = this.numOpened;
    const refusal = await this.whyRefused();
    if (opened !== this.numOpened) return;
    if (refusal) this.onTrouble(refusal);
    else this.retrySoon(code);
  }

  private retrySoon(code: number): void {
    const wait = SLOW_RETRY.includes(code) ? MAX_RETRY_MS : this.retryMs;
    const retryMs = wait * (0.8 + 0.4 * Math.random());
    this.retryMs = Math.min(2 * this.retryMs, MAX_RETRY_MS);
    this.timer = window.setTimeout(() => this.open(), retryMs);
    this.onTrouble({ kind: "lost", line: this.line, retryMs });
  }
}
