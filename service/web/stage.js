// The photo on screen: what is shown, and where on the photo somebody points.

import { grayOf, paint } from "./maps.js";

const MOST_SIDE = 2048;
const STEP = 0.02; // of the longer side, by an arrow key
const OUTLINE = [255, 210, 31];

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Draws what it is given, and calls `onPick({x, y})` with pixels of the photo as displayed. */
export class Stage {
  #frame = document.getElementById("frame");
  #board = document.getElementById("board");
  #before = document.getElementById("before");
  #after = document.getElementById("after");
  #hover = document.getElementById("hover");
  #reticle = document.getElementById("reticle");
  #aim = document.getElementById("aim");
  #tag = document.getElementById("tag");
  #wipe = document.getElementById("wipe");
  #wipeAt = document.getElementById("wipe-at");
  #busy = new Set();
  #labels = null;
  #outlines = new Map();
  #shown = null;
  #point = null; // of the keyboard

  constructor({ onPick, onPoint }) {
    this.onPick = onPick;
    this.onPoint = onPoint;
    this.width = 1;
    this.height = 1;
    this.side = 1024;
    this.#frame.addEventListener("pointermove", (event) => event.pointerType === "touch" || this.#pointAt(this.#pixel(event)));
    this.#frame.addEventListener("pointerleave", () => this.#pointAt(null));
    this.#frame.addEventListener("click", (event) => {
      this.#point = this.#pixel(event);
      this.#aim.hidden = true;
      this.onPick(this.#point);
    });
    this.#frame.addEventListener("keydown", (event) => this.#key(event));
    this.#frame.addEventListener("blur", () => {
      this.#aim.hidden = true;
      this.#pointAt(null);
    });
    this.#wipeAt.addEventListener("input", () => this.#divide());
    new ResizeObserver(() => this.#fit()).observe(this.#board);
  }

  /** Whether anybody is in the photo. */
  get someone() {
    return this.people > 0;
  }

  /** A new photo, shown as the browser has it until the server's own rendering comes. */
  async begin(file) {
    this.#labels = null;
    this.#outlines.clear();
    this.#shown = null;
    this.#point = null;
    this.people = 0;
    for (const element of [this.#reticle, this.#aim, this.#tag]) element.hidden = true;
    for (const canvas of [this.#before, this.#after, this.#hover]) canvas.width = canvas.height = 1;
    this.#board.hidden = false;
    try {
      const bitmap = await createImageBitmap(file); // upright: EXIF is applied
      const scale = Math.min(1, MOST_SIDE / Math.max(bitmap.width, bitmap.height));
      this.resize(bitmap.width, bitmap.height);
      const small = await createImageBitmap(bitmap, {
        resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
        resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
        resizeQuality: "high",
      });
      bitmap.close();
      this.#draw(this.#before, small);
    } catch {
      this.resize(4, 3); // HEIC, TIFF: the browser cannot show it, the server will
    }
  }

  /** The photo's size as displayed, in pixels. */
  resize(width, height) {
    this.width = width;
    this.height = height;
    this.#fit();
    const side = Math.max(this.#frame.clientWidth, this.#frame.clientHeight) * Math.min(2, window.devicePixelRatio || 1);
    this.side = clamp(Math.ceil(side / 256) * 256, 768, MOST_SIDE);
  }

  async showBefore(blob) {
    this.#draw(this.#before, await createImageBitmap(blob));
  }

  async showAfter(blob) {
    this.#draw(this.#after, await createImageBitmap(blob));
  }

  /** The map of people: whom a click would pick. */
  async setLabels(blob, people) {
    this.people = people;
    this.#labels = await grayOf(blob);
    this.#outlines.clear();
  }

  /** Index of the person at a pixel of the photo, null where there is nobody. */
  personAt({ x, y }) {
    if (this.#labels === null) return null;
    const { width, height, levels } = this.#labels;
    const column = clamp(Math.floor(((x + 0.5) * width) / this.width), 0, width - 1);
    const row = clamp(Math.floor(((y + 0.5) * height) / this.height), 0, height - 1);
    const label = levels[row * width + column];
    return label === 0 ? null : label - 1;
  }

  /** Draws round a person, or nobody. */
  outline(person) {
    if (person === this.#shown) return;
    this.#shown = person;
    if (person === null || this.#labels === null) {
      this.#hover.classList.remove("on");
      return;
    }
    const { width, height } = this.#labels;
    if (!this.#outlines.has(person)) this.#outlines.set(person, outlineOf(this.#labels, person + 1));
    paint(this.#hover, width, height, this.#outlines.get(person));
    this.#hover.classList.add("on");
  }

  /** Where the focus is: a pixel of the photo, or null. */
  mark(point) {
    this.#reticle.hidden = point === null;
    if (point !== null) this.#place(this.#reticle, point);
    this.#reticle.classList.remove("fresh");
    void this.#reticle.offsetWidth; // so that the animation starts again
    this.#reticle.classList.add("fresh");
  }

  compare(on) {
    this.#wipe.hidden = !on;
    for (const side of ["side-before", "side-after"]) document.getElementById(side).hidden = !on;
    this.#divide();
  }

  /** Somebody (`who`) has begun work, or has ended it; there may be others. */
  busy(who, on) {
    if (on) this.#busy.add(who);
    else this.#busy.delete(who);
    document.getElementById("progress").hidden = this.#busy.size === 0;
    this.#frame.setAttribute("aria-busy", String(this.#busy.size > 0));
  }

  #divide() {
    const share = this.#wipe.hidden ? 0 : Number(this.#wipeAt.value);
    this.#frame.style.setProperty("--divide", `${share}%`);
    this.#wipe.style.setProperty("--divide", `${share}%`);
    this.#wipeAt.setAttribute("aria-valuetext", `${share} % before, ${100 - share} % after`);
  }

  #draw(canvas, bitmap) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  #fit() {
    const style = getComputedStyle(this.#board);
    const wide = this.#board.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const room = Number.parseFloat(style.getPropertyValue("--room")) || 0; // where the page scrolls, its share of the window
    const high = room
      ? Math.max(window.innerHeight * room, 200)
      : this.#board.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    const scale = Math.max(Math.min(wide / this.width, high / this.height), 0);
    this.#frame.style.width = `${Math.max(1, Math.floor(this.width * scale))}px`;
    this.#frame.style.height = `${Math.max(1, Math.floor(this.height * scale))}px`;
    this.#wipe.style.width = this.#frame.style.width;
  }

  #pixel(event) {
    const box = this.#frame.getBoundingClientRect();
    return {
      x: clamp(Math.floor(((event.clientX - box.left) / box.width) * this.width), 0, this.width - 1),
      y: clamp(Math.floor(((event.clientY - box.top) / box.height) * this.height), 0, this.height - 1),
    };
  }

  #pointAt(point) {
    const person = point === null ? null : this.personAt(point);
    this.outline(person);
    this.#tag.hidden = person === null;
    if (person !== null) {
      this.#tag.textContent = `Person ${person + 1}`;
      this.#place(this.#tag, point);
    }
  }

  #place(element, { x, y }) {
    element.style.left = `${((x + 0.5) / this.width) * 100}%`;
    element.style.top = `${((y + 0.5) / this.height) * 100}%`;
  }

  #key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    this.#point ??= { x: Math.floor(this.width / 2), y: Math.floor(this.height / 2) };
    if (!move) {
      this.#aim.hidden = true;
      this.onPick({ ...this.#point });
      return;
    }
    const share = Math.max(1, Math.round(Math.max(this.width, this.height) * STEP));
    const step = event.altKey ? 1 : event.shiftKey ? share * 5 : share;
    this.#point = {
      x: clamp(this.#point.x + move[0] * step, 0, this.width - 1),
      y: clamp(this.#point.y + move[1] * step, 0, this.height - 1),
    };
    this.#aim.hidden = false;
    this.#place(this.#aim, this.#point);
    this.#pointAt(this.#point);
    this.onPoint(this.#point, this.personAt(this.#point));
  }
}

/** RGBA of a person's outline: a line round the label, a breath of colour inside. */
function outlineOf({ width, height, levels }, label) {
  const rgba = new Uint8ClampedArray(width * height * 4);
  const thick = Math.max(2, Math.round(Math.max(width, height) / 450));
  const is = (x, y) => x >= 0 && y >= 0 && x < width && y < height && levels[y * width + x] === label;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (levels[y * width + x] !== label) continue;
      const rim = !(is(x - thick, y) && is(x + thick, y) && is(x, y - thick) && is(x, y + thick));
      const at = (y * width + x) * 4;
      rgba.set(OUTLINE, at);
      rgba[at + 3] = rim ? 255 : 36;
    }
  }
  return rgba;
}
