/** The socket, which comes back by itself. */

import { CLOSE, PROTOCOL_VERSION, parse, type FrameMessage, type Hello, type PromptMessage, type StateMessage } from "./protocol";

export interface Wishes {
  world?: string;
  start?: string;
  seed?: string;
  steps?: string;
}

export type Trouble =
  /** Comes back in retryMs. */
  | { kind: "lost"; line: string; retryMs: number }
  /** Trying again at once would not help: the player decides. */
  | { kind: "refused"; line: string }
  /** Nobody was here for long, and the place was given back. */
  | { kind: "released"; line: string };

const FIRST_RETRY_MS = 250;
const MAX_RETRY_MS = 4000;
const SLOW_RETRY: number[] = [CLOSE.failed, CLOSE.busy];
const NO_RETRY: number[] = [CLOSE.malformed, CLOSE.unknown, CLOSE.oversized, CLOSE.flooding];

export class Connection {
  onConnecting: () => void = () => {};
  onHello: (hello: Hello) => void = () => {};
  onState: (state: StateMessage) => void = () => {};
  onFrame: (frame: FrameMessage, receivedMs: number) => void = () => {};
  onPrompt: (message: PromptMessage) => void = () => {};
  onTrouble: (trouble: Trouble) => void = () => {};

  private socket: WebSocket | null = null;
  private retryMs = FIRST_RETRY_MS;
  private timer = 0;
  private line = "";
  /** This socket's HELLO has come: before it, whoever sends still counts on from the last socket. */
  private greeted = false;

  constructor(private readonly wishes: () => Wishes) {
    // A laptop that wakes up, or a tab that comes back, need not wait for the timer.
    window.addEventListener("online", () => this.retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.retryNow());
  }

  open(): void {
    this.abandon();
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.line = "";
    this.greeted = false;
    this.onConnecting();
    const query = new URLSearchParams(Object.entries(this.wishes()).filter(([, value]) => value));
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws?${query}`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => this.receive(event.data);
    socket.onclose = (event) => this.closed(event.code);
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

  /** Two clicks must not take two places in the world. */
  private abandon(): void {
    if (!this.socket) return;
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }

  private receive(data: ArrayBuffer): void {
    const receivedMs = performance.now();
    const message = parse(data);
    if (message.type === "frame") this.onFrame(message.frame, receivedMs);
    else if (message.type === "state") this.onState(message.state);
    else if (message.type === "prompt") this.onPrompt(message.prompt);
    else if (message.type === "error") this.line = message.line;
    else this.welcome(message.hello);
  }

  private welcome(hello: Hello): void {
    if (hello.protocol !== PROTOCOL_VERSION) {
      this.line = "The server was updated while this page was open. Reload the page.";
      this.socket?.close(CLOSE.malformed);
      return;
    }
    this.retryMs = FIRST_RETRY_MS;
    this.greeted = true;
    this.onHello(hello);
  }

  private closed(code: number): void {
    this.socket = null;
    if (code === CLOSE.silent) {
      this.onTrouble({ kind: "released", line: this.line });
      return;
    }
    if (NO_RETRY.includes(code)) {
      this.onTrouble({ kind: "refused", line: this.line || "The server refused." });
      return;
    }
    const wait = SLOW_RETRY.includes(code) ? MAX_RETRY_MS : this.retryMs;
    const retryMs = wait * (0.8 + 0.4 * Math.random());
    this.retryMs = Math.min(2 * this.retryMs, MAX_RETRY_MS);
    this.timer = window.setTimeout(() => this.open(), retryMs);
    this.onTrouble({ kind: "lost", line: this.line, retryMs });
  }
}
