// A focus pull: from what is in focus to a second point, as the server's animation.

import { Latest } from "./api.js";
import { say } from "./human.js";
import { save } from "./downloads.js";

const element = (id) => document.getElementById(id);

export class Pull {
  #latest = new Latest();
  #blob = null;
  #url = null;
  #name = "focus";

  /** @param {(aim: object, signal: AbortSignal) => Promise<Response>} ask for the animation that ends at an aim */
  constructor({ ask, fail, stage }) {
    this.ask = ask;
    this.fail = fail;
    this.stage = stage;
    this.armed = false;
    element("pull-start").addEventListener("click", () => this.arm(!this.armed));
    element("pull-play").addEventListener("click", () => this.#play(element("pull").hidden));
    element("pull-save").addEventListener("click", () => save(this.#blob, `${this.#name}.pull.webp`));
    element("pull-close").addEventListener("click", () => this.close());
  }

  arm(on) {
    this.armed = on;
    element("pull-start").setAttribute("aria-pressed", String(on));
    element("pull-start").textContent = on ? "Click where to" : "Choose where to";
    element("frame").classList.toggle("armed", on);
    if (on) say("Click, or press Enter, where the focus should move to.");
  }

  /** @param {object} aim `rack_x` and `rack_y`, or `rack_person` */
  async go(aim, name) {
    this.arm(false);
    this.close();
    this.#name = name;
    say("Moving the focus, frame by frame…");
    this.stage.busy("pull", true);
    element("pull-start").disabled = true;
    try {
      const answer = await this.#latest.run((signal) => this.ask(aim, signal));
      if (answer === null) return;
      this.#blob = await answer.blob();
      this.#url = URL.createObjectURL(this.#blob);
      for (const id of ["pull-play", "pull-save", "pull-close"]) element(id).hidden = false;
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.#play(!still);
      say(still ? "The focus pull is ready: press Play." : `The focus moves, in ${answer.headers.get("X-Rack-Frames")} frames.`);
    } catch (error) {
      this.fail(error);
    } finally {
      element("pull-start").disabled = false;
      this.stage.busy("pull", false);
    }
  }

  /** Back to the still picture; whatever is on its way is given up. */
  close() {
    this.#latest.abort();
    const image = element("pull");
    image.hidden = true;
    image.removeAttribute("src");
    if (this.#url !== null) URL.revokeObjectURL(this.#url);
    this.#url = this.#blob = null;
    for (const id of ["pull-play", "pull-save", "pull-close"]) element(id).hidden = true;
  }

  #play(on) {
    const image = element("pull");
    if (on) image.src = this.#url; // set anew, it begins at its beginning
    else image.removeAttribute("src");
    image.hidden = !on;
    element("pull-play").textContent = on ? "Stop" : "Play";
  }
}
