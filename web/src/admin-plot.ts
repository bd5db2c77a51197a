/** A plot of the last minutes on a canvas: lines, or areas on top of each other. */

export interface Series {
  name: string;
  /** A color as CSS has it. */
  color: string;
  /** One for each of the plot's times; null where it is not known. */
  values: (number | null)[];
}

export interface Plot {
  /** When each value was, in milliseconds, ascending. */
  times: number[];
  series: Series[];
  stacked?: boolean;
  /** Values hold until the next one. */
  stepped?: boolean;
  /** There is nothing between two whole numbers. */
  whole?: boolean;
  /** Lowest and highest value that is shown, if it shall not follow the values. */
  range?: [number, number];
  /** How a value is written at the side. */
  written: (value: number) => string;
}

/** What of the past is shown. */
export const SPAN_MS = 300_000;
/** Between values that are farther apart, nothing is known. */
const LONGEST_GAP_MS = 5_000;
const MARGIN = { left: 46, right: 2, top: 6, bottom: 14 };
const INK = "rgb(236 231 221 / 0.14)";
const TEXT = "rgb(236 231 221 / 0.55)";

export function draw(canvas: HTMLCanvasElement, plot: Plot, nowMs: number, cursorMs: number | null): void {
  const { width, height } = fit(canvas);
  const graph = canvas.getContext("2d")!;
  graph.clearRect(0, 0, width, height);
  const layers = plot.stacked ? stack(plot.series) : plot.series.map((series) => series.values);
  const [low, high] = plot.range ?? [0, niceTop(greatest(layers))];
  const x = (ms: number): number => MARGIN.left + (1 - (nowMs - ms) / SPAN_MS) * (width - MARGIN.left - MARGIN.right);
  const y = (value: number): number => {
    const part = (Math.min(Math.max(value, low), high) - low) / (high - low);
    return height - MARGIN.bottom - part * (height - MARGIN.top - MARGIN.bottom);
  };
  const lines = [low, (low + high) / 2, high].filter((value) => !plot.whole || Number.isInteger(value));
  drawGrid(graph, width, lines, y, plot.written);
  drawMinutes(graph, height, x, nowMs);
  for (let index = layers.length - 1; index >= 0; index--) {
    const below = plot.stacked && index > 0 ? layers[index - 1]! : null;
    for (const run of runs(plot.times, layers[index]!)) {
      graph.strokeStyle = graph.fillStyle = plot.series[index]!.color;
      drawRun(graph, run, plot, layers[index]!, below, x, y);
    }
  }
  if (cursorMs !== null) {
    graph.fillStyle = TEXT;
    graph.fillRect(Math.round(x(cursorMs)), MARGIN.top, 1, height - MARGIN.top - MARGIN.bottom);
  }
}

/** When the pointer is over, in milliseconds. */
export function timeAt(canvas: HTMLCanvasElement, clientX: number, nowMs: number): number {
  const box = canvas.getBoundingClientRect();
  const part = (clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  return nowMs - (1 - Math.min(Math.max(part, 0), 1)) * SPAN_MS;
}

/** Index of the time that is nearest; -1 of none. */
export function nearest(times: number[], ms: number): number {
  let found = -1;
  times.forEach((time, index) => {
    if (found < 0 || Math.abs(time - ms) <= Math.abs(times[found]! - ms)) found = index;
  });
  return found;
}

/** The least round number that is not smaller. */
export function niceTop(value: number): number {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= value * 0.9999)!;
}

/** Sums of every series and those before it; a value that is not known counts as nothing, if any other is. */
export function stack(series: Series[]): (number | null)[][] {
  const sums: (number | null)[][] = [];
  series.forEach(({ values }, index) => {
    const below = sums[index - 1];
    sums.push(
      values.map((value, at) => {
        const known = series.some((other) => other.values[at] !== null);
        return known ? (value ?? 0) + (below?.[at] ?? 0) : null;
      }),
    );
  });
  return sums;
}

/** Where values are known without a gap: pairs of the first index and the one after the last. */
export function runs(times: number[], values: (number | null)[]): [number, number][] {
  const found: [number, number][] = [];
  values.forEach((value, index) => {
    const last = found.at(-1);
    if (value === null) return;
    const goesOn = last?.[1] === index && times[index]! - times[index - 1]! <= LONGEST_GAP_MS;
    if (goesOn) last[1] = index + 1;
    else found.push([index, index + 1]);
  });
  return found;
}

function greatest(layers: (number | null)[][]): number {
  return layers.reduce((top, values) => values.reduce<number>((most, value) => Math.max(most, value ?? 0), top), 0);
}

function drawRun(
  graph: CanvasRenderingContext2D,
  [first, end]: [number, number],
  plot: Plot,
  values: (number | null)[],
  below: (number | null)[] | null,
  x: (ms: number) => number,
  y: (value: number) => number,
): void {
  const at = (index: number): number => x(plot.times[index]!);
  const trace = (path: (number | null)[]): Path2D => {
    const line = new Path2D();
    for (let index = first; index < end; index++) {
      if (plot.stepped && index > first) line.lineTo(at(index), y(path[index - 1] ?? 0));
      line.lineTo(at(index), y(path[index] ?? 0));
    }
    return line;
  };
  const line = trace(values);
  if (plot.stacked) {
    const area = new Path2D(line);
    for (let index = end - 1; index >= first; index--) area.lineTo(at(index), y(below?.[index] ?? 0));
    graph.globalAlpha = 0.42;
    graph.fill(area);
    graph.globalAlpha = 1;
  }
  graph.lineWidth = 1.5;
  graph.lineJoin = "round";
  graph.stroke(line);
  if (end - first === 1) graph.fillRect(at(first) - 1, y(values[first] ?? 0) - 1, 2, 2);
}

function drawGrid(
  graph: CanvasRenderingContext2D,
  width: number,
  values: number[],
  y: (value: number) => number,
  written: (value: number) => string,
): void {
  graph.font = `10px ${getComputedStyle(document.documentElement).fontFamily}`;
  graph.textAlign = "right";
  graph.textBaseline = "middle";
  for (const value of values) {
    graph.fillStyle = INK;
    graph.fillRect(MARGIN.left, Math.round(y(value)), width - MARGIN.left - MARGIN.right, 1);
    graph.fillStyle = TEXT;
    graph.fillText(written(value), MARGIN.left - 6, y(value));
  }
}

function drawMinutes(graph: CanvasRenderingContext2D, height: number, x: (ms: number) => number, nowMs: number): void {
  graph.fillStyle = TEXT;
  graph.textBaseline = "alphabetic";
  for (let minutes = SPAN_MS / 60_000; minutes >= 0; minutes--) {
    graph.textAlign = minutes === 0 ? "right" : minutes === SPAN_MS / 60_000 ? "left" : "center";
    const text = minutes === 0 ? "now" : `−${minutes}${graph.textAlign === "left" ? " min" : ""}`;
    graph.fillText(text, x(nowMs - minutes * 60_000), height - 1);
  }
}

/** As many pixels as the screen has there; the size is in CSS pixels. */
function fit(canvas: HTMLCanvasElement): { width: number; height: number } {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  canvas.getContext("2d")!.setTransform(ratio, 0, 0, ratio, 0, 0);
  return { width, height };
}
