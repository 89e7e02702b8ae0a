// Colours of maps: inferno for depth, blue to orange for blur.

// Nine of matplotlib's inferno (CC0), a straight line between each two.
const INFERNO = ["000004", "1f0c48", "550f6d", "88226a", "bb3754", "e35933", "f98e09", "f9cb35", "fcffa4"];
const BLUE = [74, 144, 255];
const ORANGE = [255, 138, 30];

const parts = (hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));

/** 256 colours, RGB one behind the other, of inverse depth: dark = far, bright = near. */
export const DEPTH = (() => {
  const table = new Uint8ClampedArray(768);
  const stops = INFERNO.map(parts);
  for (let level = 0; level < 256; level++) {
    const at = (level / 255) * (stops.length - 1);
    const index = Math.min(Math.floor(at), stops.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [low, high] = [stops[index][channel], stops[index + 1][channel]];
      table[level * 3 + channel] = low + (high - low) * (at - index);
    }
  }
  return table;
})();

/** RGBA of a signed share of the largest blur: clear in focus, orange in front of it, blue behind. */
export function blurColour(share) {
  const colour = share > 0 ? ORANGE : BLUE;
  return [...colour, 255 * Math.sqrt(Math.min(1, Math.abs(share)))];
}

/** Paints the legend's ramps. */
export function paintRamp(canvas, colourAt) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, 1);
  for (let x = 0; x < canvas.width; x++) image.data.set(colourAt(x / (canvas.width - 1)), x * 4);
  context.putImageData(image, 0, 0);
}
