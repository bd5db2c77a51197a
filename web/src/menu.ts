/** Title screen and pause menu (one place), and the help panel. Only the document: what a choice means is decided in page.ts. */

import type { Hello } from "./protocol";
import { helpRows, title } from "./keymap";

export class Menu {
  onPlay: () => void = () => {};
  onRestart: () => void = () => {};
  onStart: (name: string) => void = () => {};
  onSteps: (steps: number) => void = () => {};
  onSensitivity: (degreesPerPixel: number) => void = () => {};

  private hello: Hello | null = null;
  private readonly help = byId<HTMLDialogElement>("help");

  constructor(sensitivity: number) {
    byId("play").addEventListener("click", () => this.onPlay());
    byId("restart").addEventListener("click", () => this.onRestart());
    byId("fullscreen").addEventListener("click", () => this.toggleFullscreen());
    byId("help-open").addEventListener("click", () => this.toggleHelp());
    byId("help-close").addEventListener("click", () => this.help.close());
    // A click beside the panel closes it: the backdrop belongs to the dialog element itself.
    this.help.addEventListener("click", (event) => event.target === this.help && this.help.close());
    const slider = byId<HTMLInputElement>("sensitivity");
    slider.value = String(sensitivity);
    slider.addEventListener("input", () => this.onSensitivity(Number(slider.value)));
    document.addEventListener("fullscreenchange", () => {
      byId("fullscreen").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
    });
    byId("fullscreen").hidden = !document.fullscreenEnabled;
  }

  /** Everything that depends on the world. */
  build(hello: Hello, start: string | undefined, steps: number): void {
    document.title = `${title(hello.world)} · Reverie`;
    const chosen = start ?? hello.starts[0]?.name;
    this.hello = hello;
    const starts = hello.starts.map(({ name, title: caption }) => {
      const choice = radio("start", name, caption, name === chosen, () => this.onStart(name));
      const picture = document.createElement("img");
      picture.src = this.thumbnail(name);
      picture.alt = "";
      choice.className = "start";
      choice.prepend(picture);
      return choice;
    });
    document.querySelector(".starts-row")!.replaceChildren(...starts);
    byId("starts").hidden = starts.length < 2;
    const passes = hello.steps.map((count) =>
      radio("steps", String(count), String(count), count === steps, () => this.onSteps(count)),
    );
    document.querySelector(".segments")!.replaceChildren(...passes);
    byId("steps").hidden = passes.length < 2;
    byId("sensitivity-label").hidden = !hello.action_space.camera_limit;
    byId("facts").textContent = `${title(hello.world)} · ${hello.width} × ${hello.height} · ${hello.fps} frames a second`;
    this.buildHelp(hello);
  }

  /** What one sees when play begins there; the first start if none is named. */
  thumbnail(start = this.hello?.starts[0]?.name ?? ""): string {
    const [world, name] = [this.hello?.world ?? "", start].map(encodeURIComponent);
    return `/api/worlds/${world}/starts/${name}.jpg`;
  }

  setPlay(label: string, enabled: boolean): void {
    const button = byId<HTMLButtonElement>("play");
    button.textContent = label;
    button.disabled = !enabled;
  }

  focusPlay(): void {
    byId("play").focus({ preventScroll: true });
  }

  get helpOpen(): boolean {
    return this.help.open;
  }

  toggleHelp(): void {
    if (this.help.open) this.help.close();
    else this.help.showModal();
  }

  toggleFullscreen(): void {
    if (document.fullscreenElement) void document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => {});
  }

  private buildHelp(hello: Hello): void {
    const groups = helpRows(hello.action_space).map(({ group, rows }) => {
      const section = document.createElement("section");
      const heading = document.createElement("h3");
      heading.textContent = group;
      const list = document.createElement("dl");
      for (const [what, caps] of rows) {
        const [row, term, keys] = [tag("div"), tag("dt"), tag("dd")];
        term.textContent = what;
        keys.append(...caps.map((cap) => tag("kbd", cap)));
        row.append(term, keys);
        list.append(row);
      }
      section.append(heading, list);
      return section;
    });
    byId("help-groups").replaceChildren(...groups);
  }
}

export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

function tag(name: string, text = ""): HTMLElement {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function radio(name: string, value: string, text: string, checked: boolean, choose: () => void): HTMLLabelElement {
  const label = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name, value, checked });
  input.addEventListener("change", choose);
  label.append(input, tag("span", text));
  return label;
}
