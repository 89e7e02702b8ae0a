// Every format that the server has, by its own description, and the same request for curl.

import { address, key } from "./api.js";

const element = (id) => document.getElementById(id);

// What people call them. A route or output that is not here is shown by the server's own words.
const OUTPUTS = {
  image: "Refocused photo",
  alpha: "Matte of who is sharp",
  coc: "Circles of confusion",
  depth: "Depth used for the blur",
  people: "Who is in the photo",
  labels: "Map of people",
  all: "Everything, zipped",
};
const ROUTES = { depth: "Depth map", segmentation: "Mask of people", analyze: "Depth, mask and people" };
const FORMATS = {
  same: "As the photo", jpeg: "JPEG", png: "PNG", png16: "PNG, 16 bits", webp: "WebP", avif: "AVIF", tiff: "TIFF", bmp: "BMP",
  gif: "GIF", npy: "NumPy (.npy)", npz: "NumPy (.npz)", exr: "OpenEXR", preview: "Colours (PNG)", json: "Numbers (JSON)",
  zip: "Zip", ply: "Point cloud (PLY)", glb: "3D mesh (GLB)", cutout: "Cut-out (PNG)",
};
const ENDINGS = {
  "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/avif": "avif", "image/tiff": "tif", "image/bmp": "bmp",
  "image/gif": "gif", "application/x-npy": "npy", "application/x-npz": "npz", "application/json": "json", "application/zip": "zip",
  "image/x-exr": "exr", "image/aces": "exr", "model/gltf-binary": "glb", "application/x-ply": "ply",
};

/** Routes that take one photo, with the formats they have: [{route, title, formats, fixed, aimed}]. */
export function offersOf(document_) {
  const offers = [];
  for (const [path, methods] of Object.entries(document_.paths)) {
    const operation = methods.post;
    const form = operation?.requestBody?.content?.["multipart/form-data"]?.schema?.properties;
    if (!form?.image || form.image.type === "array") continue;
    const parameters = Object.fromEntries((operation.parameters ?? []).map((one) => [one.name, one]));
    if (!parameters.format || (operation.parameters ?? []).some((one) => one.required)) continue;
    const route = path.slice(1);
    if (operation["x-formats"] && parameters.output) {
      for (const [output, formats] of Object.entries(operation["x-formats"])) {
        const all = output === "image" ? ["same", ...formats] : formats;
        offers.push({ route, title: OUTPUTS[output] ?? output, formats: all, fixed: output === "image" ? {} : { output }, aimed: true });
      }
    } else {
      const { schema } = parameters.format;
      const all = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum ?? [];
      const formats = all.filter((name) => name !== "multipart"); // no file that anybody could open
      offers.push({ route, title: ROUTES[route] ?? operation.summary, formats, fixed: {}, aimed: false });
    }
  }
  return offers;
}

/** Hands a file to the browser to keep. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The chooser of what to download, and the line for curl. */
export class Downloads {
  #offers = [];

  constructor({ fetch, shot, photo, fail }) {
    Object.assign(this, { fetch, shot, photo, fail });
    element("download-what").addEventListener("change", () => this.#listFormats());
    element("download-format").addEventListener("change", () => this.write());
    element("download").addEventListener("click", () => this.#download());
    element("curl-copy").addEventListener("click", () => this.#copy());
  }

  /** Asks the server what there is. */
  async load() {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
    this.#offers = offersOf(await answer.json()).sort((one, other) => rank(one) - rank(other));
    element("download-what").replaceChildren(...this.#offers.map(({ title }, index) => new Option(title, index)));
    this.#listFormats();
  }

  /** The curl line of what would be downloaded now. */
  write() {
    const wish = this.#wish();
    const photo = this.photo();
    if (wish === null || photo === null) return;
    const url = new URL(address(wish.offer.route, wish.parameters), document.baseURI).href;
    const locked = key.get() ? " -H 'X-API-Key: YOUR_KEY'" : "";
    const ending = wish.parameters.format === undefined ? photo.name.split(".").pop() : endingOf(wish.parameters.format);
    const target = `${wish.offer.fixed.output ?? wish.offer.route}.${ending}`;
    element("curl").textContent = `curl${locked} -F ${quoted(`image=@${photo.name}`)} ${quoted(url)} -o ${target}`;
  }

  #listFormats() {
    const offer = this.#offers[element("download-what").value];
    element("download-format").replaceChildren(...(offer?.formats ?? []).map((name) => new Option(FORMATS[name] ?? name, name)));
    this.write();
  }

  #wish() {
    const offer = this.#offers[element("download-what").value];
    const shot = this.shot();
    if (!offer || (offer.aimed && shot === null)) return null;
    const format = element("download-format").value;
    const parameters = { ...(offer.aimed ? shot : {}), ...offer.fixed };
    if (format && format !== "same") parameters.format = format;
    return { offer, parameters };
  }

  async #download() {
    const wish = this.#wish();
    if (wish === null) return;
    const button = element("download");
    button.disabled = true;
    button.textContent = "Preparing…";
    try {
      const answer = await this.fetch(wish.offer, wish.parameters);
      const blob = await answer.blob();
      const type = blob.type.split(";")[0];
      const stem = this.photo().name.replace(/\.[^.]*$/, "");
      save(blob, `${stem}.${wish.offer.fixed.output ?? wish.offer.route}.${ENDINGS[type] ?? endingOf(wish.parameters.format ?? "bin")}`);
    } catch (error) {
      this.fail(error, () => this.#download());
    } finally {
      button.disabled = false;
      button.textContent = "Download";
    }
  }

  async #copy() {
    const button = element("curl-copy");
    try {
      await navigator.clipboard.writeText(element("curl").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(element("curl")); // no clipboard here: select, for Ctrl-C
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
}

const rank = ({ aimed, fixed, route }) => (aimed && !fixed.output ? 0 : route === "depth" ? 1 : route === "segmentation" ? 2 : aimed ? 4 : 3);
const endingOf = (format) => ({ png16: "png", preview: "png", cutout: "png", jpeg: "jpg", tiff: "tif" })[format] ?? format;
