/** The dashboard: asks the server how it is once a second, and remembers five minutes of that, here only. */

import { PANELS, bytes, count, held, milliseconds, percent, type Panel, type Sample } from "./admin-panels";
import { SPAN_MS, draw, nearest, timeAt, type Series } from "./admin-plot";
import type { EngineBody, StatusBody } from "./status.generated";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const KEY = "reverie-admin-key";
/** Of what has no color of its own: engines, worlds, numbers of passes. */
const COLORS = ["present", "network", "lamp", "decode", "encode", "input", "wait"];

const samples: Sample[] = [];
let cursorMs: number | null = null;
let asking = false;
let timer = 0;

class PlotView {
  readonly root = element("section", "plot");
  private readonly canvas = document.createElement("canvas");
  private readonly values = document.createElement("dl");
  private readonly shown = new Map<string, HTMLElement>();

  constructor(private readonly panel: Panel) {
    const title = element("h3", "", panel.title);
    this.canvas.setAttribute("role", "img");
    this.canvas.addEventListener("pointermove", (event) => point(timeAt(this.canvas, event.clientX, Date.now())));
    this.canvas.addEventListener("pointerleave", () => point(null));
    this.root.append(title, element("p", "note", panel.note), this.canvas, this.values);
  }

  show(nowMs: number): void {
    const readings = samples.map((sample, index) => this.panel.read(sample, samples[index - 1] ?? null));
    const names = [...new Set(readings.flatMap((reading) => Object.keys(reading)))];
    if (!this.panel.colors) names.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const series: Series[] = names.map((name, index) => ({
      name,
      color: color(this.panel.colors?.[name] ?? COLORS[index % COLORS.length]!),
      values: readings.map((reading) => reading[name] ?? null),
    }));
    const known = series.flatMap((one) => one.values).filter((value) => value !== null);
    const times = samples.map((sample) => sample.ms);
    const range = this.panel.range?.(known);
    const { stacked, stepped, whole, written, nothing } = this.panel;
    this.canvas.hidden = !known.length && nothing !== undefined;
    if (!this.canvas.hidden) draw(this.canvas, { times, series, stacked, stepped, whole, range, written }, nowMs, cursorMs);
    this.write(series, cursorMs === null ? times.length - 1 : nearest(times, cursorMs));
  }

  /** Beside the plot, for whoever cannot see it, or wants to know it exactly. */
  private write(series: Series[], index: number): void {
    if (this.canvas.hidden) {
      this.values.replaceChildren(element("div", "note", this.panel.nothing));
      this.shown.clear();
      return;
    }
    const names = JSON.stringify(series.map((one) => one.name));
    if (JSON.stringify([...this.shown.keys()]) !== names) this.list(series);
    for (const { name, values } of series) {
      const value = values[index];
      put(this.shown.get(name)!, typeof value === "number" ? this.panel.written(value) : "–");
    }
    this.canvas.setAttribute("aria-label", `${this.panel.title}: ${this.values.textContent}`);
  }

  private list(series: Series[]): void {
    this.shown.clear();
    const rows = series.map(({ name, color }) => {
      const [row, term, value] = [document.createElement("div"), element("dt", "", name), document.createElement("dd")];
      term.style.setProperty("--color", color);
      row.append(term, " ", value, " ");
      this.shown.set(name, value);
      return row;
    });
    this.values.replaceChildren(...rows);
  }
}

const plots = PANELS.map((panel) => new PlotView(panel));

async function ask(): Promise<void> {
  if (asking) return;
  asking = true;
  window.clearTimeout(timer);
  const key = sessionStorage.getItem(KEY);
  let status: StatusBody | null = null;
  try {
    const answer = await fetch("/api/status", {
      headers: key ? { authorization: `Bearer ${key}` } : {},
      signal: AbortSignal.timeout(PATIENCE_MS),
      cache: "no-store",
    });
    if (answer.status === 401 || answer.status === 403) {
      login(key ? "This key does not open the dashboard." : "");
      return;
    }
    if (answer.ok) status = (await answer.json()) as StatusBody;
  } catch {
    // Nobody answers: it is asked again, and the plots have a gap.
  } finally {
    asking = false;
  }
  byId("login").hidden = true;
  byId("state").dataset.state = status?.state ?? "silent";
  put(byId("state"), status ? status.state[0]!.toUpperCase() + status.state.slice(1) : "No answer");
  timer = window.setTimeout(ask, EVERY_MS);
  if (status) remember(status);
}

function remember(status: StatusBody): void {
  byId("board").hidden = false;
  samples.push({ ms: Date.now(), status });
  while (samples[0]!.ms < Date.now() - SPAN_MS) samples.shift();
  put(byId("about"), `Reverie ${status.version}, up for ${duration(status.uptime_s)}`);
  showNumbers(status);
  showEngines(status.engines);
  showPlots();
}

function showPlots(): void {
  if (!document.hidden && samples.length) for (const plot of plots) plot.show(Date.now());
}

function point(ms: number | null): void {
  cursorMs = ms;
  showPlots();
}

function showNumbers(status: StatusBody): void {
  const rates = status.engines.map((engine) => engine.figures?.hit_rate).filter((rate) => typeof rate === "number");
  const worst = rates.length ? Math.min(...rates) : null;
  const playing = (status.sessions.playing ?? 0) + (status.sessions.idle ?? 0);
  const { joules_per_frame: joules, watts } = status.power;
  const numbers: [string, string, string, boolean][] = [
    ["Playing", count(playing), "", true],
    ["Waiting", count(status.waiting), "", true],
    ["Deadlines held", ...split(worst === null ? "–" : held(worst)), worst === null || worst >= 0.99],
    ["Frame gap, p99", ...split(status.frames.gap_ms ? milliseconds(status.frames.gap_ms.p99) : "–"), true],
    ["Frames", count(Math.round(status.frames.fps ?? 0)), "a second", true],
    ["Wait for a place, p95", ...split(status.queue_ms ? seconds(status.queue_ms.p95) : "–"), true],
    ["Power", ...split(watts === null ? "–" : `${watts.toFixed(0)} W`), true],
    ["Energy of a frame", ...split(joules === null ? "–" : `${joules.toPrecision(2)} J`), true],
    ["An hour of play", dollars(status.dollars_per_session_hour), "", true],
    ["Carried on", count(status.recovered), "after a crash", true],
  ];
  const list = byId("numbers");
  if (!list.children.length) list.append(...numbers.map(([name]) => number(name)));
  numbers.forEach(([, value, unit, good], index) => {
    const shown = list.children[index]!.lastElementChild as HTMLElement;
    put(shown.firstElementChild!, value);
    put(shown.lastElementChild!, unit);
    shown.dataset.good = good ? "yes" : "no";
  });
}

function number(name: string): HTMLElement {
  const [root, value] = [document.createElement("div"), document.createElement("dd")];
  value.append(document.createElement("span"), document.createElement("small"));
  root.append(element("dt", "", name), value);
  return root;
}

const COLUMNS: [string, (engine: EngineBody) => string][] = [
  ["Engine", (engine) => engine.name],
  ["Device", (engine) => engine.device],
  ["State", (engine) => engine.error ?? `${engine.state}${engine.standby ? ", one stands by" : ""}`],
  ["Places", ({ figures }) => (figures ? `${figures.num_active} of ${figures.capacity}` : "–")],
  ["Level", ({ figures }) => (figures ? `${figures.level} of ${figures.num_levels - 1}` : "–")],
  ["Load", ({ figures }) => (figures ? percent(figures.load) : "–")],
  ["Slowdown", ({ figures }) => (figures ? `${figures.slowdown.toFixed(2)} ×` : "–")],
  ["Frames a second", ({ figures }) => (typeof figures?.fps === "number" ? figures.fps.toFixed(0) : "–")],
  ["Late in all", ({ figures }) => (figures ? count(figures.num_late) : "–")],
  ["Memory", ({ figures }) => (figures ? bytes(figures.memory_bytes) : "–")],
  ["Restarts", (engine) => count(engine.restarts)],
];

function showEngines(engines: EngineBody[]): void {
  const head = byId("engines-head");
  if (!head.children.length) {
    for (const [name] of COLUMNS) (head.appendChild(element("th", "", name)) as HTMLTableCellElement).scope = "col";
  }
  const body = byId("engines");
  while (body.children.length > engines.length) body.lastElementChild!.remove();
  while (body.children.length < engines.length) {
    body.append(document.createElement("tr"));
    body.lastElementChild!.append(...COLUMNS.map(() => document.createElement("td")));
  }
  engines.forEach((engine, row) => {
    COLUMNS.forEach(([, read], column) => {
      const cell = body.children[row]!.children[column]!;
      put(cell, read(engine));
      cell.className = column === 2 && engine.state === "failed" ? "bad" : "";
    });
  });
}

function login(line: string): void {
  byId("board").hidden = true;
  byId("login").hidden = false;
  byId("state").dataset.state = "";
  put(byId("state"), "Locked");
  put(byId("login-line"), line);
  byId<HTMLInputElement>("key").focus();
}

byId<HTMLFormElement>("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId<HTMLInputElement>("key");
  sessionStorage.setItem(KEY, field.value.trim());
  field.value = "";
  void ask();
});

function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}

function dollars(value: number | null): string {
  return value === null ? "–" : `$${value.toFixed(value < 0.1 ? 4 : 2)}`;
}

function duration(seconds: number): string {
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

/** A number, and its unit. */
function split(text: string): [string, string] {
  const [value, unit = ""] = text.split(" ");
  return [value!, unit];
}

function element(name: string, className: string, text = ""): HTMLElement {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Only what changed is touched: a reader that follows changes is not told the rest. */
function put(where: Element, text: string): void {
  if (where.textContent !== text) where.textContent = text;
}

function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

byId("plots").append(...plots.map((plot) => plot.root));
window.addEventListener("resize", showPlots);
document.addEventListener("visibilitychange", showPlots);
void ask();
