/**
 * From JPEG to photons. Decoding happens off the main thread; the newest picture is drawn as soon as it is decoded, older ones
 * that decode late are dropped.
 *
 * When a frame counts as presented: drawing marks the canvas dirty; the next animation frame callback opens the rendering of
 * the frame that will show it, and a message posted from there is handled once that rendering is done and handed to the
 * compositor. That is the latest moment a page can see.
 */

import type { FrameTimes } from "./latency";
import type { FrameMessage } from "./protocol";

/** Up to this share of the height may be cut off, from the top, so that the picture fills the window. */
const MAX_CROP = 0.1;
const AMBIENT_EVERY_MS = 200;

export class Screen {
  /** The frame is on the canvas: the server may send another. */
  onDrawn: (frame: FrameMessage) => void = () => {};
  onPresented: (frame: FrameMessage, times: FrameTimes) => void = () => {};

  private readonly context: CanvasRenderingContext2D;
  private readonly ambientContext: CanvasRenderingContext2D;
  private readonly afterPaint = new MessageChannel();
  private numReceived = 0;
  private numDrawn = 0;
  private drawn: { frame: FrameMessage; receivedMs: number; drawnMs: number } | null = null;
  private painting: typeof this.drawn = null;
  private requested = false;
  private ambientMs = -Infinity;
  private letterboxed = false;

  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly ambient: HTMLCanvasElement,
  ) {
    this.context = canvas.getContext("2d", { alpha: false })!;
    this.ambientContext = ambient.getContext("2d", { alpha: false })!;
    this.afterPaint.port1.onmessage = () => this.painted();
    window.addEventListener("resize", () => this.fit());
  }

  /** The size of the world's picture. */
  setSize(width: number, height: number): void {
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    this.fit();
  }

  /** A still to look at until the first frame is there. */
  poster(url: string): void {
    const picture = new Image();
    picture.onload = () => {
      if (this.numDrawn === 0) this.put(picture);
    };
    picture.src = url;
  }

  /** Nothing of what was drawn is to be seen any more. */
  clear(): void {
    this.numDrawn = 0;
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.ambientContext.clearRect(0, 0, this.ambient.width, this.ambient.height);
    delete document.documentElement.dataset.seen;
  }

  async show(frame: FrameMessage, receivedMs: number): Promise<void> {
    const number = ++this.numReceived;
    const picture = await createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" }));
    if (number > this.numDrawn) {
      this.numDrawn = number;
      this.draw(picture, frame, receivedMs);
    }
    picture.close();
  }

  private draw(picture: ImageBitmap, frame: FrameMessage, receivedMs: number): void {
    this.put(picture);
    const drawnMs = performance.now();
    this.drawn = { frame, receivedMs, drawnMs };
    this.onDrawn(frame);
    if (!this.requested) {
      this.requested = true;
      requestAnimationFrame(() => {
        this.requested = false;
        this.painting = this.drawn;
        this.drawn = null;
        this.afterPaint.port2.postMessage(null);
      });
    }
  }

  private put(picture: ImageBitmap | HTMLImageElement): void {
    this.context.drawImage(picture, 0, 0);
    document.documentElement.dataset.seen = "yes";
    if (this.letterboxed && performance.now() - this.ambientMs > AMBIENT_EVERY_MS) {
      this.ambientMs = performance.now();
      this.ambientContext.drawImage(picture, 0, 0, this.ambient.width, this.ambient.height);
    }
  }

  private painted(): void {
    if (!this.painting) return;
    const { frame, receivedMs, drawnMs } = this.painting;
    this.painting = null;
    this.onPresented(frame, { receivedMs, drawnMs, presentedMs: performance.now() });
  }

  /** Fill the window if that costs little of the sky, else show the whole picture on a glow of its own colours. */
  private fit(): void {
    const { innerWidth, innerHeight } = window;
    const { width, height } = this.canvas;
    const cover = innerWidth / width;
    const visible = innerHeight / (height * cover);
    const fills = visible <= 1 && visible >= 1 - MAX_CROP;
    this.letterboxed = !fills;
    const scale = fills ? cover : Math.min(cover, innerHeight / height);
    this.letterboxed = !fills;
    const style = this.canvas.style;
    style.width = `${Math.ceil(width * scale)}px`;
    style.height = `${Math.ceil(height * scale)}px`;
    document.documentElement.dataset.fit = fills ? "fill" : innerWidth < innerHeight ? "tall" : "whole";
  }
}
