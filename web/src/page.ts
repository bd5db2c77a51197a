/**
 * The page as a whole: which phase it is in, and what follows from what happens.
 *
 *   title     the world drifts by behind the title, and rests after a while
 *   playing   the player's devices steer it
 *   paused    the world stands still behind the menu
 */

import { Connection, type Trouble, type Wishes } from "./connection";
import { Controls } from "./controls";
import { Gamepads } from "./gamepad";
import { Hud } from "./hud";
import { Keyboard } from "./keyboard";
import { deviceKey } from "./keymap";
import { LatencyLog, RateMeter, type FrameTimes, type Sample } from "./latency";
import { byId, Menu } from "./menu";
import { Mouse } from "./mouse";
import { Notice } from "./notice";
import { fitPicture } from "./picture";
import { packAck, packCommand, packPicture, type FrameMessage, type Hello, type SessionState, type StateMessage } from "./protocol";
import { Screen } from "./screen";
import { ActionSender } from "./sender";
import { Touch } from "./touch";
import { WishBox } from "./wish";

type Phase = "title" | "playing" | "paused";
type Link = SessionState | "connecting" | Trouble["kind"];

const DRIFT_DEG_PER_S = 5;
const REST_AFTER_MS = 30_000;
const HINT_MS = 6000;

export class Page {
  private phase: Phase = "title";
  private session: Link = "connecting";
  private hello: Hello | null = null;
  private controls: Controls | null = null;
  private keyboard: Keyboard | null = null;
  private sender: ActionSender | null = null;
  private resting = false;
  /** The player's own, to begin from; sent again to a session that begins anew. */
  private picture: ArrayBuffer | null = null;
  /** Of pictures and starts: a slow picture must not come after a later choice. */
  private numOffered = 0;
  private restTimer = 0;
  private keepAliveTimer = 0;
  private framesShown = 0;
  private differentFrames = 0;
  private firstFrameMs: number | null = null;
  private lastFrame: FrameMessage | null = null;
  private lastHash = 0;

  private readonly wishes: Wishes = Object.fromEntries(new URLSearchParams(location.search));
  private readonly latency = new LatencyLog();
  private readonly painted = new RateMeter();
  private readonly different = new RateMeter();
  private readonly stage = byId("stage");
  private readonly screen = new Screen(byId("picture"), byId("ambient"));
  private readonly connection = new Connection(() => this.wishes);
  private readonly notice = new Notice(() => this.connection.open());
  private readonly hud = new Hud(byId("hud"), this.latency, this.painted, () => this.phase === "playing");
  private readonly wishBox = new WishBox();
  private readonly mouse = new Mouse(this.stage, () => this.controls, () => this.phase === "playing" && !this.wishBox.isOpen);
  private readonly touch = new Touch(this.stage, byId("touch"), () => this.controls, () => this.phase === "playing");
  private readonly menu: Menu;

  constructor() {
    const kept = Number(localStorage.getItem("degreesPerPixel"));
    if (kept > 0) this.mouse.degreesPerPixel = kept;
    this.menu = new Menu(this.mouse.degreesPerPixel);
    this.connectMenu();
    this.connectSocket();
    this.connectDevices();
    this.show();
    this.connection.open();
  }

  /** What the HUD shows, and a little more; also for tests and benchmarks. */
  stats(): Record<string, unknown> {
    const now = performance.now();
    return {
      state: this.session,
      phase: this.phase,
      fps: this.painted.perSecond(now),
      differentFps: this.different.perSecond(now),
      actionToPhoton: this.latency.summary(now),
      framesShown: this.framesShown,
      differentFrames: this.differentFrames,
      firstFrameMs: this.firstFrameMs,
      frameIndex: this.lastFrame?.frameIndex ?? null,
      numSteps: this.lastFrame?.numSteps ?? null,
    };
  }

  /** Every measured action since a time of this page's clock. */
  samples(sinceMs: number): Sample[] {
    return this.latency.since(sinceMs);
  }

  private connectMenu(): void {
    this.menu.onPlay = () => this.play();
    this.menu.onRestart = () => {
      this.command("restart");
      this.play();
    };
    this.menu.onStart = (name) => {
      this.wishes.start = name;
      this.picture = null;
      this.numOffered += 1;
      this.command("start", { name });
      this.enter("title");
    };
    this.menu.onPicture = (file) => void this.beginFrom(file);
    this.menu.onSteps = (steps) => {
      this.wishes.steps = String(steps);
      this.command("steps", { steps });
    };
    this.menu.onSensitivity = (degreesPerPixel) => {
      this.mouse.degreesPerPixel = degreesPerPixel;
      localStorage.setItem("degreesPerPixel", String(degreesPerPixel));
    };
    byId("touch-menu").addEventListener("click", () => this.pause());
    byId("touch-wish").addEventListener("click", () => this.openWishes());
    this.stage.addEventListener("pointerdown", () => this.wishBox.close());
    this.wishBox.onWish = (text) => this.command("prompt", { text });
    this.wishBox.onClosed = () => this.phase === "playing" && this.takeHold();
  }

  private connectSocket(): void {
    this.connection.onConnecting = () => {
      this.setSession("connecting");
      this.notice.connecting();
    };
    this.connection.onHello = (hello) => this.welcome(hello);
    this.connection.onState = (message) => this.stateChanged(message);
    this.connection.onPrompt = (message) => this.wishBox.answer(message);
    this.connection.onTrouble = (trouble: Trouble) => {
      if (trouble.kind === "refused") this.picture = null;
      this.setSession(trouble.kind);
      this.latency.forget();
      this.notice.trouble(trouble);
    };
    this.connection.onFrame = (frame, receivedMs) => {
      this.sender?.frameArrived(frame);
      void this.screen.show(frame, receivedMs);
    };
    this.screen.onDrawn = (frame) => this.connection.send(packAck(frame.frameIndex));
    this.screen.onPresented = (frame, times) => this.presented(frame, times);
  }

  private connectDevices(): void {
    // A picture may be dropped or pasted anywhere.
    window.addEventListener("dragover", (event) => event.preventDefault());
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      this.offer(event.dataTransfer);
    });
    window.addEventListener("paste", (event) => this.offer(event.clipboardData));
    window.addEventListener("keydown", (event) => this.keyDown(event));
    window.addEventListener("keyup", (event) => this.keyboard?.lift(event));
    window.addEventListener("blur", () => this.release());
    window.addEventListener("pointermove", () => this.stir());
    document.addEventListener("visibilitychange", () => this.visibilityChanged());
    this.mouse.onUnlocked = () => this.phase === "playing" && this.pause();
    const pads = new Gamepads(() => this.controls, () => this.phase === "playing");
    pads.onMenu = () => (this.phase === "playing" ? this.pause() : this.play());
  }

  // The session.

  private welcome(hello: Hello): void {
    if (JSON.stringify(hello) !== JSON.stringify(this.hello)) {
      this.hello = hello;
      this.picture = null; // it was fitted to another world
      this.controls = new Controls(hello.action_space, hello.fps);
      this.controls.onSlot = (slot) => this.touch.showSlot(slot);
      this.keyboard = new Keyboard(this.controls);
      const periodMs = 1000 / hello.fps;
      this.sender = new ActionSender(this.controls, this.latency, (message) => this.connection.send(message), periodMs);
      window.clearInterval(this.keepAliveTimer);
      this.keepAliveTimer = window.setInterval(() => this.session === "playing" && this.sender?.keepAlive(), periodMs);
      this.screen.setSize(hello.width, hello.height);
      this.menu.build(hello, this.wishes.start, Number(this.wishes.steps ?? Math.min(...hello.steps)));
      this.touch.build(this.controls);
      this.wishBox.build(hello);
      byId("touch-wish").hidden = !hello.action_space.attributes;
      this.screen.poster(this.menu.thumbnail(this.wishes.start));
    }
    this.sender?.reset();
    this.lastFrame = null;
    if (this.picture) this.connection.send(packPicture(this.picture));
    if (this.phase === "playing") this.hint("Connected again: the world begins anew");
    if (this.phase === "paused" || this.resting || document.hidden) this.command("pause");
  }

  private stateChanged(message: StateMessage): void {
    // Nobody steered for a while: fewer frames, and otherwise nothing that a player need know.
    const state = message.state === "idle" ? "playing" : message.state;
    this.setSession(state);
    this.notice.state({ ...message, state });
    if (message.state !== "playing") this.latency.forget();
    this.drift();
  }

  private setSession(session: Link): void {
    this.session = session;
    this.show();
  }

  private offer(carried: DataTransfer | null): void {
    const file = carried?.files[0];
    if (file && this.hello?.generated && this.phase !== "playing") void this.beginFrom(file);
  }

  private async beginFrom(file: Blob): Promise<void> {
    const { width, height } = this.hello!;
    const offered = ++this.numOffered;
    try {
      const jpeg = await fitPicture(file, width, height);
      const bytes = await jpeg.arrayBuffer();
      // Meanwhile the player chose something else, or plays: what was chosen last counts.
      if (offered !== this.numOffered || this.phase === "playing") return;
      this.picture = bytes;
      this.menu.showPicture(URL.createObjectURL(jpeg));
      this.connection.send(packPicture(bytes));
      this.enter("title");
    } catch {
      this.hint("That file is not a picture that this browser can read");
    }
  }

  private command(command: string, details: Record<string, unknown> = {}): void {
    this.connection.send(packCommand(command, details));
  }

  private presented(frame: FrameMessage, times: FrameTimes): void {
    this.firstFrameMs ??= times.presentedMs;
    this.latency.presented(frame, times);
    this.framesShown += 1;
    this.painted.count(times.presentedMs);
    const hash = fingerprint(frame.jpeg);
    if (hash !== this.lastHash) {
      this.differentFrames += 1;
      this.different.count(times.presentedMs);
    }
    this.lastHash = hash;
    this.lastFrame = frame;
  }

  // Phases.

  private play(): void {
    this.enter("playing");
    this.takeHold();
    const wishes = this.hello?.action_space.attributes ? ", Enter for a wish" : "";
    if (!("touch" in document.documentElement.dataset)) this.hint(`Esc for the menu${wishes}`);
  }

  private takeHold(): void {
    this.stage.focus({ preventScroll: true });
    void this.mouse.lock();
  }

  private pause(): void {
    this.enter("paused");
    this.mouse.unlock();
    this.menu.focusPlay();
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.wishBox.close();
    this.resting = false;
    this.release();
    this.latency.forget();
    this.command(phase === "paused" ? "pause" : "resume");
    this.drift();
    this.show();
  }

  /** On the title screen the view turns slowly, unless the player's system asks for less motion. */
  private drift(): void {
    window.clearTimeout(this.restTimer);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const drifts = this.phase === "title" && !this.resting;
    this.controls?.turnAtRate("mouse", drifts && !still ? DRIFT_DEG_PER_S : 0, 0, null);
    if (drifts) this.restTimer = window.setTimeout(() => this.rest(), REST_AFTER_MS);
  }

  /** Nobody came: a title screen need not keep two cores busy. */
  private rest(): void {
    this.resting = true;
    this.command("pause");
    this.drift();
  }

  /** Somebody is here. */
  private stir(): void {
    if (this.session === "released") this.connection.open();
    if (this.phase === "title" && this.resting) this.enter("title");
  }

  private release(): void {
    this.keyboard?.release();
    this.controls?.release();
    this.drift();
  }

  private visibilityChanged(): void {
    if (document.hidden) {
      if (this.phase === "playing") this.pause();
      else this.command("pause");
    } else if (this.phase === "title" && !this.resting) {
      this.command("resume");
    }
  }

  private show(): void {
    document.body.dataset.phase = this.phase;
    document.body.dataset.session = this.session;
    const menu = byId("menu");
    menu.inert = this.phase === "playing";
    const ready = this.session === "playing" || this.session === "paused";
    this.menu.setPlay(this.phase === "paused" ? "Resume" : "Play", ready);
    this.hud.refresh();
  }

  private hint(text: string): void {
    const hint = byId("hint");
    hint.textContent = text;
    hint.classList.add("shown");
    window.setTimeout(() => hint.classList.remove("shown"), HINT_MS);
  }

  // Keys of the page; the world's own come first while it is played.

  private keyDown(event: KeyboardEvent): void {
    if (event.altKey || event.metaKey || this.menu.helpOpen) return;
    this.stir();
    if (this.phase === "playing") {
      if (event.repeat || this.keyboard?.press(event)) {
        event.preventDefault();
        return;
      }
    }
    if (event.ctrlKey) return;
    const key = deviceKey(event.code);
    const ready = !byId<HTMLButtonElement>("play").disabled;
    if (key === "enter" && this.phase !== "playing" && ready && document.activeElement === document.body) this.play();
    else if (key === "enter" && this.phase === "playing") this.openWishes();
    else if (key === "escape") this.phase === "playing" ? this.pause() : this.phase === "paused" && this.play();
    else if (key === "h") this.hud.nextMode();
    else if (key === "f") this.menu.toggleFullscreen();
    else if (event.key === "?") this.openHelp();
    else return;
    event.preventDefault();
  }

  private openWishes(): void {
    if (!this.hello?.action_space.attributes) {
      this.hint("This world does not take prompts");
      return;
    }
    if (this.session !== "playing") return; // nobody would hear it
    this.release();
    this.mouse.unlock(); // for the examples
    this.wishBox.open();
  }

  private openHelp(): void {
    if (this.phase === "playing") this.pause();
    this.menu.toggleHelp();
  }
}

/** Tells whether two pictures differ: FNV-1a over the JPEG. */
function fingerprint(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < bytes.length; index++) hash = Math.imul(hash ^ bytes[index]!, 0x01000193);
  return hash;
}
