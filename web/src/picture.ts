/** A player's own picture, cut and scaled to what a world draws, as the JPEG that the server begins from. */

const JPEG_QUALITY = 0.95;

export interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** The largest part around the middle of a picture that has the shape of another. */
export function middle(width: number, height: number, toWidth: number, toHeight: number): Rectangle {
  const scale = Math.min(width / toWidth, height / toHeight);
  const [cutWidth, cutHeight] = [scale * toWidth, scale * toHeight];
  return { x: (width - cutWidth) / 2, y: (height - cutHeight) / 2, width: cutWidth, height: cutHeight };
}

/** Of a file that a player chose, dropped or pasted. Rejects what the browser cannot read as a picture. */
export async function fitPicture(file: Blob, width: number, height: number): Promise<Blob> {
  const picture = await createImageBitmap(file);
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d")!;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // where the picture is transparent
  context.fillRect(0, 0, width, height);
  const cut = middle(picture.width, picture.height, width, height);
  context.drawImage(picture, cut.x, cut.y, cut.width, cut.height, 0, 0, width, height);
  picture.close();
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("not a picture"))), "image/jpeg", JPEG_QUALITY),
  );
}
