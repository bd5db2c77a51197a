/** The figures in the corner: redrawn four times a second, since on a small machine they share its cores with the world. */

import { PARTS, percentile, type LatencyLog, type Part, type RateMeter } from "./latency";

const MODES = ["full", "compact", "off"] as const;
type Mode = (typeof MODES)[number];
const REFRESH_MS = 250;
const BAR_WIDTH = 4;
const TARGET_MS = 100;
const LABELS: Record<Part, string> = {
  input: "Input",
  network: "Network",
  wait: "Wait",
  generate: "Generate",
  encode: "Encode",
  decode: "Decode",
  present: "Present",
};

export class Hud {
  private mode: Mode;
  private readonly values = new Map<Part, HTMLElement>();
  private readonly colors: string[];
  private readonly graph: CanvasRenderingContext2D;

  constructor(
    private readonly root: HTMLElement,
    private readonly latency: LatencyLog,
    private readonly painted: RateMeter,
    private readonly visible: () => boolean,
  ) {
    const style = getComputedStyle(document.documentElement);
    this.colors = PARTS.map((part) => style.getPropertyValue(`--${part}`));
    const canvas = this.get<HTMLCanvasElement>("hud-graph");
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = 208 * ratio;
    canvas.height = 44 * ratio;
    this.graph = canvas.getContext("2d")!;
    this.graph.scale(ratio, ratio);
    this.get("hud-parts").replaceChildren(...PARTS.map((part) => this.row(part)));
    const kept = localStorage.getItem("hud") as Mode | null;
    this.mode = kept && MODES.includes(kept) ? kept : Math.min(innerWidth, innerHeight) < 600 ? "compact" : "full";
    window.setInterval(() => this.refresh(), REFRESH_MS);
  }

  nextMode(): void {
    this.mode = MODES[(MODES.indexOf(this.mode) + 1) % MODES.length]!;
    localStorage.setItem("hud", this.mode);
    this.refresh();
  }

  refresh(): void {
    this.root.hidden = this.mode === "off" || !this.visible();
    if (this.root.hidden) return;
    this.root.dataset.mode = this.mode;
    const now = performance.now();
    const { p50, p95, parts } = this.latency.summary(now);
    this.get("hud-fps").textContent = rounded(this.painted.perSecond(now));
    this.get("hud-p50").textContent = rounded(p50);
    this.get("hud-p95").textContent = rounded(p95);
    if (this.mode !== "full") return;
    for (const part of PARTS) this.values.get(part)!.textContent = fine(parts[part]);
    this.draw();
  }

  /** One bar for each of the last actions, its parts stacked in the order in which they happen. */
  private draw(): void {
    const [width, height] = [208, 44];
    const samples = this.latency.last(width / BAR_WIDTH);
    const top = Math.max(1.2 * TARGET_MS, percentile(samples.map((sample) => sample.total), 0.98) || 0);
    const graph = this.graph;
    graph.clearRect(0, 0, width, height);
    samples.forEach((sample, index) => {
      const x = width - (samples.length - index) * BAR_WIDTH;
      let y = height;
      PARTS.forEach((part, color) => {
        const size = (Math.max(0, sample[part]) / top) * height;
        graph.fillStyle = this.colors[color]!;
        graph.fillRect(x, y - size, BAR_WIDTH - 1, size);
        y -= size;
      });
    });
    graph.fillStyle = "rgb(236 231 221 / 0.45)";
    for (let x = 0; x < width; x += 6) graph.fillRect(x, height - (TARGET_MS / top) * height, 3, 1);
  }

  private row(part: Part): HTMLElement {
    const row = document.createElement("div");
    const [name, value] = [document.createElement("dt"), document.createElement("dd")];
    name.textContent = LABELS[part];
    name.style.setProperty("--color", `var(--${part})`);
    row.append(name, value);
    this.values.set(part, value);
    return row;
  }

  private get<E extends HTMLElement>(id: string): E {
    return this.root.querySelector<E>(`#${id}`)!;
  }
}

function rounded(value: number): string {
  return Number.isFinite(value) ? value.toFixed(0) : "–";
}

function fine(value: number): string {
  return Number.isFinite(value) ? value.toFixed(value < 9.95 ? 1 : 0) : "–";
}
