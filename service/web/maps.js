// Maps that the server sends, as numbers: gray PNG through the browser, .npy by hand.

/** The levels 0..255 of a gray PNG, whatever its depth. */
export async function grayOf(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const levels = new Uint8Array(width * height);
  for (let index = 0; index < levels.length; index++) levels[index] = data[index * 4];
  return { width, height, levels };
}

/** The numbers of a two-dimensional float32 .npy in C order. */
export async function numbersOf(blob) {
  const buffer = await blob.arrayBuffer();
  const view = new DataView(buffer);
  const long = view.getUint8(6) > 1;
  const start = long ? 12 : 10;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const head = new TextDecoder("latin1").decode(new Uint8Array(buffer, start, length));
  const shape = /'shape': \((\d+), (\d+)\)/.exec(head);
  if (!head.includes("'<f4'") || !shape) throw new Error(`not a float32 map: ${head}`);
  const [height, width] = [Number(shape[1]), Number(shape[2])];
  return { width, height, values: new Float32Array(buffer.slice(start + length, start + length + 4 * width * height)) };
}

/** A canvas element takes what was computed: RGBA of `width` x `height`. */
export function paint(canvas, width, height, rgba) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
}
