// The controls of the lens, and the parameters of `POST /focus` that they stand for.

const element = (id) => document.getElementById(id);
const WIDE_STOPS = 27; // f/1 to f/22 in sixths of a doubling of the aperture's area's root: 2^(27/6) = 22.6
const DEFAULTS = { f_number: 2.8, blades: 0, highlights: "auto", front: 1, back: 1 };

const fNumber = (position) => {
  const exact = 2 ** ((WIDE_STOPS - position) / 6);
  return Math.min(22, exact < 10 ? Math.round(exact * 10) / 10 : Math.round(exact));
};

/** Calls `onChange` when the lens has been changed. */
export class Lens {
  constructor(onChange) {
    for (const id of ["aperture", "blades", "highlights", "front", "back"]) {
      element(id).addEventListener("input", () => {
        this.#write();
        onChange();
      });
    }
    this.#write();
  }

  get fNumber() {
    return fNumber(Number(element("aperture").value));
  }

  /** Those that are not the server's defaults. */
  get parameters() {
    const all = {
      f_number: this.fNumber,
      blades: Number(element("blades").value),
      highlights: element("highlights").value,
      front: Number(element("front").value) / 100,
      back: Number(element("back").value) / 100,
    };
    return Object.fromEntries(Object.entries(all).filter(([name, value]) => value !== DEFAULTS[name]));
  }

  #write() {
    const text = `f/${this.fNumber}`;
    element("aperture-out").textContent = text;
    element("aperture").setAttribute("aria-valuetext", text);
    for (const side of ["front", "back"]) element(`${side}-out`).textContent = `${element(side).value} %`;
    for (const range of document.querySelectorAll(".panel input[type=range]")) {
      range.style.setProperty("--at", (range.value - range.min) / (range.max - range.min));
    }
  }
}
