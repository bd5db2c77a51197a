/**
 * The page as a whole: which phase it is in, and what follows from what happens.
 *
 *   title     the world drifts by behind the title, and rests after a while
 *   playing   the player's devices steer it
 *   paused    the world stands still behind the menu
 */

import { readAddress, Tab } from "./address";
import { Api } from "./api";
import { Connection, type Trouble } from "./connection";
import { Controls } from "./controls";
import { FrameCounter } from "./counter";
import { Gamepads } from "./gamepad";
import { Hud } from "./hud";
import { FILE_ENDING, Keeper } from "./keeper";
import { Keyboard } from "./keyboard";
import { deviceKey, rewindKeys } from "./keymap";
import { LatencyLog, type FrameTimes, type Sample } from "./latency";
import { Marks } from "./marks";
import { byId, Menu, rewindSeconds } from "./menu";
import { Mouse } from "./mouse";
import { Hint, Notice, sentence } from "./notice";
import { fitPicture } from "./picture";
import {
  packAck,
  packCommand,
  packPicture,
  type Command,
  type FrameMessage,
  type Hello,
  type SessionState,
  type StateMessage,
} from "./protocol";
import { Screen } from "./screen";
import { ActionSender } from "./sender";
import { Stay } from "./stay";
import { Touch } from "./touch";
import { WishBox } from "./wish";

type Phase = "title" | "playing" | "paused";
type Link = SessionState | "connecting" | "left" | Trouble["kind"];

/** Of the first button, where it opens a session. */
const PLAY_LABELS: Partial<Record<Link, string>> = { left: "Play again", over: "Play again", elsewhere: "Play here" };
const DRIFT_DEG_PER_S = 5;
const REST_AFTER_MS = 30_000;
const REPORT_MS = 5000;
const HERE_MS = 60_000;

export class Page {
  private phase: Phase = "title";
  private session: Link = "connecting";
  private hello: Hello | null = null;
  /** The world that the page was built for. */
  private built = "";
  private replays = false;
  private warned = false;
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

  private readonly address = readAddress(location.search, location.hash);
  private readonly wishes = this.address.wishes;
  private readonly tab = new Tab(sessionStorage);
  private readonly token = this.tab.token(this.address.token);
  private readonly api = new Api(this.token);
  private readonly latency = new LatencyLog();
  private readonly frames = new FrameCounter();
  private readonly stage = byId("stage");
  private readonly screen = new Screen(byId("picture"), byId("ambient"));
  private readonly marks = new Marks();
  private readonly connection = new Connection(() => this.wishes, this.token, () => this.api.refusal());
  private readonly stay = new Stay(this.address, this.tab, this.api, this.connection);
  private readonly keeper = new Keeper(this.api, () => this.hello?.world ?? "", (command) => this.command({ command }));
  private readonly notice = new Notice(() => this.connection.open());
  private readonly hint = new Hint();
  private readonly hud = new Hud(byId("hud"), this.latency, this.frames.painted, () => this.phase === "playing");
  private readonly wishBox = new WishBox();
  private readonly mouse = new Mouse(this.stage, () => this.controls, () => this.phase === "playing" && !this.wishBox.isOpen);
  private readonly touch = new Touch(this.stage, byId("touch"), () => this.controls, () => this.phase === "playing");
  private readonly menu: Menu;

  constructor() {
    const kept = Number(localStorage.getItem("degreesPerPixel"));
    if (kept > 0) this.mouse.degreesPerPixel = kept;
    this.menu = new Menu(this.mouse.degreesPerPixel, (path) => this.api.picture(path));
    this.connectMenu();
    this.connectKeeping();
    this.connectSocket();
    this.connectDevices();
    this.show();
    this.notice.hadPlace = this.stay.arrive();
    window.setInterval(() => this.report(), REPORT_MS);
  }

  /** What the HUD shows, and a little more; also for tests and benchmarks. */
  stats(): Record<string, unknown> {
    const now = performance.now();
    return {
      state: this.session,
      phase: this.phase,
      actionToPhoton: this.latency.summary(now),
      ...this.frames.stats(now),
    };
  }

  /** Every measured action since a time of this page's clock. */
  samples(sinceMs: number): Sample[] {
    return this.latency.since(sinceMs);
  }

  private connectMenu(): void {
    this.menu.onPlay = () => this.play();
    this.menu.onRestart = () => {
      this.command({ command: "restart" });
      this.play();
    };
    this.menu.onStart = (name) => {
      this.wishes.start = name;
      this.picture = null;
      this.numOffered += 1;
      this.command({ command: "start", name });
      this.enter("title");
    };
    this.menu.onPicture = (file) => void this.beginFrom(file);
    this.menu.onSteps = (steps) => {
      this.wishes.steps = String(steps);
      this.command({ command: "steps", steps });
    };
    this.menu.onSensitivity = (degreesPerPixel) => {
      this.mouse.degreesPerPixel = degreesPerPixel;
      localStorage.setItem("degreesPerPixel", String(degreesPerPixel));
    };
    byId("touch-menu").addEventListener("click", () => this.pause());
    byId("touch-wish").addEventListener("click", () => this.openWishes());
    this.stage.addEventListener("pointerdown", () => this.wishBox.close());
    this.wishBox.onWish = (text) => this.command({ command: "prompt", text });
    this.wishBox.onClosed = () => this.phase === "playing" && this.takeHold();
  }

  private connectKeeping(): void {
    this.menu.onRewind = () => this.rewind();
    this.menu.onKeep = (command) => this.keeper.ask(command);
    this.menu.onOpen = (file) => void this.keeper.open(file);
    this.menu.onLeave = () => this.leave();
    this.keeper.onBrought = (resume) => {
      this.drop();
      this.stay.goTo(resume, { line: "Opened: it goes on where it was saved.", phase: "paused" });
    };
    this.stay.onFailed = (error) => this.keeper.fail(error);
  }

  private connectSocket(): void {
    this.connection.onConnecting = () => {
      this.setSession("connecting");
      this.notice.connecting();
    };
    this.connection.onHello = (hello, resumed) => this.welcome(hello, resumed);
    this.connection.onAnswer = (message) => this.keeper.answer(message);
    this.connection.onState = (message) => this.stateChanged(message);
    this.connection.onPrompt = (message) => this.wishBox.answer(message);
    this.connection.onTrouble = (trouble: Trouble) => {
      this.keeper.lost();
      this.latency.forget();
      if (trouble.kind === "refused") this.picture = null;
      if (trouble.kind !== "lost") this.endMarks();
      if (trouble.kind === "over") this.over("over");
      else if (trouble.kind !== "lost" && this.phase === "playing") this.pause(); // for its buttons
      else if (this.phase !== "title") this.stay.lost();
      this.setSession(trouble.kind);
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
    window.addEventListener("hashchange", () => this.addressChanged());
    document.addEventListener("visibilitychange", () => this.visibilityChanged());
    this.mouse.onUnlocked = () => this.phase === "playing" && this.pause();
    const pads = new Gamepads(() => this.controls, () => this.phase === "playing");
    pads.onMenu = () => (this.phase === "playing" ? this.pause() : this.play());
  }

  // The session.

  private welcome(hello: Hello, resumed: boolean): void {
    const world = JSON.stringify({ ...hello, resume: "" });
    this.hello = hello;
    if (world !== this.built) this.build(hello);
    this.built = world;
    this.sender?.reset();
    this.frames.restart();
    this.warned = false;
    if (!resumed) this.notice.hadPlace = false;
    if (!resumed && this.picture) this.connection.send(packPicture(this.picture));
    const arrival = this.stay.arrived();
    if (arrival?.phase) this.enter(document.hidden ? "paused" : arrival.phase);
    else if (this.phase === "paused" || this.resting || document.hidden) this.command({ command: "pause" });
    else if (resumed) this.command({ command: "resume" });
    if (arrival) this.tell(arrival.line);
    this.stay.remember(this.phase !== "title");
  }

  /** Everything that depends on the world. */
  private build(hello: Hello): void {
    this.picture = null; // it was fitted to another world
    this.controls = new Controls(hello.action_space, hello.fps);
    this.controls.onSlot = (slot) => this.touch.showSlot(slot);
    this.keyboard = new Keyboard(this.controls);
    const periodMs = 1000 / hello.fps;
    this.sender = new ActionSender(this.controls, this.latency, (message) => this.connection.send(message), periodMs);
    window.clearInterval(this.keepAliveTimer);
    this.keepAliveTimer = window.setInterval(() => this.session === "playing" && this.sender?.keepAlive(), periodMs);
    this.screen.setSize(hello.width, hello.height);
    this.buildMenu(hello);
    this.touch.build(this.controls);
    this.wishBox.build(hello);
    byId("touch-wish").hidden = !hello.action_space.attributes;
  }

  private buildMenu(hello: Hello): void {
    this.menu.build(hello, this.wishes.start, Number(this.wishes.steps ?? Math.min(...hello.steps)));
    void this.menu.thumbnail(this.wishes.start).then((address) => this.screen.poster(address));
  }

  private stateChanged(message: StateMessage): void {
    // Nobody steered for a while: fewer frames, and otherwise nothing that a player need know.
    const state = message.state === "idle" ? "playing" : message.state;
    this.setSession(state);
    this.notice.state({ ...message, state });
    if (message.state !== "playing") this.latency.forget();
    const replays = message.replay === true;
    if (this.replays && !replays && state === "playing") this.tell("The replay is over: go on yourself");
    this.replays = replays;
    this.marks.show(replays, message.left_s);
    if (message.left_s !== undefined && !this.warned) {
      this.warned = true;
      this.tell(`This session ends in ${Math.round(message.left_s)} s. Save it to go on another day.`);
    }
    this.drift();
    if (state === "paused" && message.reason) this.pausedByServer(message.reason);
  }

  /** Either nobody was here for long, or this page stood still for a moment, which need not bother anybody. */
  private pausedByServer(reason: string): void {
    const steeredMs = performance.now() - (this.sender?.lastInputMs ?? 0);
    const isHere = this.phase === "playing" ? steeredMs < HERE_MS : this.phase === "title" && !this.resting;
    if (isHere && !document.hidden) this.command({ command: "resume" });
    else if (this.phase === "playing") {
      this.pause();
      this.keeper.say(sentence(reason));
    }
  }

  private leave(): void {
    this.drop();
    this.over("left");
    this.notice.left();
    this.screen.clear();
    if (this.hello) this.buildMenu(this.hello);
  }

  /** What is played is not wanted any more: another session comes, or none. */
  private drop(): void {
    this.stay.leave();
    this.picture = null;
    this.numOffered += 1;
  }

  /** There is no session any more: the title is what is left. */
  private over(how: "left" | "over"): void {
    this.stay.forget();
    this.mouse.unlock();
    this.endMarks();
    this.frames.restart();
    this.enter("title");
    this.setSession(how);
  }

  private endMarks(): void {
    this.marks.clear();
    this.replays = false;
  }

  private rewind(): void {
    const seconds = this.hello ? rewindSeconds(this.hello) : 0;
    if (!seconds || !this.command({ command: "rewind", seconds })) return;
    this.latency.forget();
    this.tell(`${seconds} s back`);
  }

  private report(): void {
    if (this.phase !== "playing" || this.session !== "playing") return;
    const ms = this.latency.report(performance.now());
    if (ms.length) this.command({ command: "photon", ms });
  }

  private setSession(session: Link): void {
    this.session = session;
    this.show();
  }

  private offer(carried: DataTransfer | null): void {
    const file = carried?.files[0];
    if (!file || !this.hello || this.phase === "playing") return;
    if (file.name.endsWith(FILE_ENDING)) void this.keeper.open(file);
    else if (this.hello.generated) void this.beginFrom(file);
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
      this.tell("That file is not a picture that this browser can read.");
    }
  }

  private command(command: Command): boolean {
    return this.connection.send(packCommand(command));
  }

  private presented(frame: FrameMessage, times: FrameTimes): void {
    this.notice.hadPlace = true;
    this.latency.presented(frame, times);
    this.frames.count(frame, times.presentedMs);
  }

  // Phases.

  private play(): void {
    if (this.session in PLAY_LABELS) this.connection.open();
    this.enter("playing");
    this.takeHold();
    const wishes = this.hello?.action_space.attributes ? ", Enter for a wish" : "";
    if (!("touch" in document.documentElement.dataset)) this.hint.say(`Esc for the menu${wishes}`);
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
    this.command({ command: phase === "paused" ? "pause" : "resume" });
    this.stay.remember(phase !== "title");
    this.keeper.say("");
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
    this.command({ command: "pause" });
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
      else this.command({ command: "pause" });
    } else if (this.phase === "title" && !this.resting) {
      this.command({ command: "resume" });
    }
  }

  /** A link was opened in this tab that differs only behind the #. */
  private addressChanged(): void {
    const { token, resume, replay } = readAddress("", location.hash);
    if (token || resume || replay) location.reload();
  }

  private show(): void {
    document.body.dataset.phase = this.phase;
    document.body.dataset.session = this.session;
    const menu = byId("menu");
    menu.inert = this.phase === "playing";
    const ready = this.session === "playing" || this.session === "paused";
    const label = PLAY_LABELS[this.session];
    this.menu.setPlay(label ?? (this.phase === "paused" ? "Resume" : "Play"), ready || label !== undefined);
    // Also for the blink that going back takes: a button that is disabled loses the focus.
    this.menu.setKeeping(ready || (this.session === "warming" && this.hello !== null), this.hello !== null);
    this.hud.refresh();
  }

  /** Where one looks: over the picture, or in the menu. */
  private tell(line: string): void {
    if (this.phase === "playing") this.hint.say(line);
    else this.keeper.say(line);
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
    else if (this.phase !== "title" && this.hello && rewindKeys(this.hello.action_space).includes(key)) this.rewind();
    else if (key === "h") this.hud.nextMode();
    else if (key === "f") this.menu.toggleFullscreen();
    else if (event.key === "?") this.openHelp();
    else return;
    event.preventDefault();
  }

  private openWishes(): void {
    if (!this.hello?.action_space.attributes) {
      this.hint.say("This world does not take prompts");
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
