// What the server sees, laid over the photo: depth, people, blur.

import { DEPTH, blurColour, paintRamp } from "./colours.js";
import { Latest } from "./api.js";
import { grayOf, numbersOf, paint } from "./maps.js";

const BLUR_SIDE = 640; // smooth enough, and a float map of it is a megabyte
const PERSON = [38, 198, 168];
const NAMES = ["depth", "people", "blur"];

export class Layers {
  #stage;
  #ask;
  #fail;
  #state = {};

  /**
   * @param {Stage} stage whose size the maps take
   * @param {(parameters: object, signal: AbortSignal) => Promise<Response>} ask about the photo
   * @param {() => object|null} shot what the shown picture was asked with, null before there is one
   * @param {(error: Error) => void} fail
   */
  constructor(stage, ask, shot, fail) {
    this.#stage = stage;
    this.#ask = ask;
    this.#fail = fail;
    this.shot = shot;
    for (const name of NAMES) {
      const box = document.getElementById(`show-${name}`);
      const opacity = document.getElementById(`opacity-${name}`);
      const canvas = document.getElementById(`layer-${name}`);
      this.#state[name] = { box, opacity, canvas, latest: new Latest(), fresh: false };
      canvas.style.opacity = opacity.value / 100;
      opacity.addEventListener("input", () => (canvas.style.opacity = opacity.value / 100));
      box.addEventListener("change", () => this.#show(name));
    }
    paintRamp(document.getElementById("ramp-depth"), (at) => [...DEPTH.subarray(3 * Math.round(255 * at), 3 * Math.round(255 * at) + 3), 255]);
    paintRamp(document.getElementById("ramp-blur"), (at) => blurColour(2 * at - 1));
  }

  /** Another photo: nothing that was fetched holds any longer. */
  reset() {
    for (const name of NAMES) {
      this.#state[name].latest.abort();
      this.#state[name].fresh = false;
      this.#state[name].canvas.hidden = true;
    }
  }

  /** Photo or focus have changed: what is on show is fetched anew. */
  async update({ focusOnly }) {
    for (const name of NAMES) {
      if (!focusOnly || name === "blur") this.#state[name].fresh = false;
      if (this.#state[name].box.checked) await this.#show(name);
    }
  }

  async #show(name) {
    const { box, opacity, canvas, latest } = this.#state[name];
    opacity.disabled = !box.checked;
    const legend = document.getElementById(`legend-${name}`);
    if (legend) legend.hidden = !box.checked;
    if (!box.checked) {
      canvas.hidden = true;
      return;
    }
    try {
      if (!this.#state[name].fresh) {
        const done = await latest.run((signal) => this[`_${name}`](canvas, signal));
        if (done === null) return;
        this.#state[name].fresh = true;
      }
      canvas.hidden = !box.checked;
    } catch (error) {
      box.checked = false;
      opacity.disabled = true;
      this.#fail(error);
    }
  }

  async _depth(canvas, signal) {
    const answer = await this.#ask({ output: "depth", format: "png", max_side: this.#stage.side }, signal);
    const { width, height, levels } = await grayOf(await answer.blob());
    const rgba = new Uint8ClampedArray(levels.length * 4).fill(255);
    for (let index = 0; index < levels.length; index++) rgba.set(DEPTH.subarray(levels[index] * 3, levels[index] * 3 + 3), index * 4);
    signal.throwIfAborted();
    paint(canvas, width, height, rgba);
    return true;
  }

  async _people(canvas, signal) {
    const everyone = this.#stage.someone ? { person: "all" } : { rx: 0.5, ry: 0.5, mode: "plane" };
    const answer = await this.#ask({ output: "alpha", ...everyone, max_side: this.#stage.side }, signal);
    const { width, height, levels } = await grayOf(await answer.blob());
    const rgba = new Uint8ClampedArray(levels.length * 4);
    for (let index = 0; index < levels.length; index++) {
      rgba.set(PERSON, index * 4);
      rgba[index * 4 + 3] = levels[index];
    }
    signal.throwIfAborted();
    paint(canvas, width, height, rgba);
    return true;
  }

  async _blur(canvas, signal) {
    const shot = this.shot();
    if (shot === null) return null; // asked again once there is a picture
    const answer = await this.#ask({ ...shot, output: "coc", format: "npy", max_side: BLUR_SIDE }, signal);
    const { width, height, values } = await numbersOf(await answer.blob());
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
    const rgba = new Uint8ClampedArray(values.length * 4);
    for (let index = 0; index < values.length; index++) rgba.set(blurColour(values[index] / largest), index * 4);
    signal.throwIfAborted();
    paint(canvas, width, height, rgba);
    return true;
  }
}
