// One photo on the server: sent once, then asked for by its scene's token.

import { address, ask } from "./api.js";

/** A photo and what the server knows of it. `width`, `height` and all clicks are in the displayed orientation. */
export class Photo {
  #human;
  #scene = null;
  #sending = null;

  constructor(file, human) {
    this.file = file;
    this.name = file.name || "photo.jpg";
    this.#human = human;
    this.width = 0;
    this.height = 0;
    this.people = [];
  }

  /** Sends the photo, and learns who is in it. */
  async send(signal) {
    const answer = await ask(address("focus", { output: "people" }), this.file, signal, this.#human);
    const report = await answer.json();
    this.width = report.width;
    this.height = report.height;
    this.people = report.people;
    this.#scene = report.scene;
  }

  /** An answer of `POST /focus` about this photo; sends it again where the server has forgotten it. */
  async focus(parameters, signal) {
    if (this.#scene !== null) {
      const scene = this.#scene;
      try {
        return await ask(address("focus", { ...parameters, scene }), null, signal, this.#human);
      } catch (error) {
        if (error.code !== "unknown_scene") throw error;
        if (this.#scene === scene) this.#scene = null;
      }
      await this.#sendAgain();
      signal.throwIfAborted();
      if (this.#scene !== null) return this.focus(parameters, signal);
    }
    return ask(address("focus", parameters), this.file, signal, this.#human); // a server that keeps no scenes
  }

  /** An answer of any other route that takes the photo. */
  async route(path, parameters, signal) {
    return ask(address(path, parameters), this.file, signal, this.#human);
  }

  /** Once, however many answers wait for it: those that are given up meanwhile do not stop it for the others. */
  async #sendAgain() {
    this.#sending ??= this.send(new AbortController().signal).finally(() => (this.#sending = null));
    await this.#sending;
  }
}
