// The page: a photo comes in, clicks and sliders become requests, answers become pictures.

import { Latest } from "./api.js";
import { Camera } from "./camera.js";
import { Downloads } from "./downloads.js";
import { complain, human, hush, say } from "./human.js";
import { Layers } from "./layers.js";
import { Lens } from "./lens.js";
import { Photo } from "./photo.js";
import { Pull } from "./pull.js";
import { Stage } from "./stage.js";

const QUIET_MS = 90; // a slider at rest for so long is asked for
const LOOK = { format: "jpeg", quality: 90 };

const element = (id) => document.getElementById(id);

let photo = null;
let aim = null; // {x, y} or {person}
let shot = null; // parameters of the picture on show, without format and size

const opening = new Latest();
const rendering = new Latest();
const stage = new Stage({ onPick: pick, onPoint: point });
const lens = new Lens(renderSoon);
const layers = new Layers(stage, (parameters, signal) => photo.focus(parameters, signal), () => shot, complain);
const pull = new Pull({
  ask: (target, signal) => photo.focus({ ...parametersOf(aim), ...target }, signal),
  fail: complain,
  stage,
});
const downloads = new Downloads({
  fetch: (offer, parameters) => {
    const signal = new AbortController().signal;
    return offer.route === "focus" ? photo.focus(parameters, signal) : photo.route(offer.route, parameters, signal);
  },
  shot: () => shot,
  photo: () => photo,
  fail: complain,
});
new Camera(open);

// A photo comes in

async function open(file) {
  hush();
  pull.close();
  pull.arm(false);
  rendering.abort();
  stage.busy("picture", false);
  layers.reset();
  element("welcome").hidden = true;
  element("panel").hidden = false;
  element("another").hidden = false;
  element("main").dataset.state = "busy";
  for (const part of element("panel").querySelectorAll("button, select, input")) part.disabled = true;
  say("Looking at the photo…");
  aim = shot = null;
  try {
    const opened = await opening.run((signal) => send(file, signal));
    if (opened !== null) await begin(opened);
  } catch (error) {
    stage.busy("photo", false);
    welcome();
    complain(error, mayHelp(error) ? () => open(file) : null);
  }
}

/** Whether the same request may have another end: not where the photo or a parameter is refused. */
const mayHelp = ({ status }) => status === undefined || status === 0 || status >= 500 || [401, 408, 429].includes(status);

/** Shows the photo, sends it, and asks for the server's own upright rendering and its map of people. */
async function send(file, signal) {
  await stage.begin(file);
  signal.throwIfAborted();
  stage.busy("photo", true);
  const sent = new Photo(file, human);
  await sent.send(signal);
  stage.resize(sent.width, sent.height);
  const untouched = { rx: 0.5, ry: 0.5, mode: "plane", blur: 0, ...LOOK, max_side: stage.side };
  const answers = await Promise.all([
    sent.focus(untouched, signal),
    sent.focus({ output: "labels", max_side: stage.side }, signal),
  ]);
  const [before, labels] = await Promise.all(answers.map((answer) => answer.blob()));
  signal.throwIfAborted();
  return { sent, before, labels };
}

/** The first focus: on the nearest person, else on the middle. */
async function begin({ sent, before, labels }) {
  photo = sent;
  stage.busy("photo", false);
  await stage.showBefore(before);
  await stage.setLabels(labels, photo.people.length);
  for (const part of element("panel").querySelectorAll("button, select, input")) part.disabled = false;
  for (const name of ["depth", "people", "blur"]) element(`opacity-${name}`).disabled = !element(`show-${name}`).checked;
  element("main").dataset.state = "ready";
  listPeople();
  element("mode").querySelector("[value=auto]").checked = true;
  aim = photo.people.length ? { person: [0] } : { x: Math.floor(photo.width / 2), y: Math.floor(photo.height / 2) };
  await render();
  await layers.update({ focusOnly: false });
}

function welcome() {
  photo = null;
  element("main").dataset.state = "empty";
  element("board").hidden = true;
  element("welcome").hidden = false;
  element("panel").hidden = true;
  element("another").hidden = true;
  say("");
}

// Clicks and keys

const mode = () => element("mode").querySelector(":checked").value;

function pick(where) {
  if (photo === null || element("main").dataset.state !== "ready") return;
  if (pull.armed) {
    const person = mode() === "plane" ? null : stage.personAt(where);
    pull.go(person === null ? { rack_x: where.x, rack_y: where.y } : { rack_person: person }, stem());
    return;
  }
  aim = where;
  render();
}

function point({ x, y }, person) {
  say(person === null ? `Column ${x}, row ${y}: nobody here.` : `Column ${x}, row ${y}: person ${person + 1}.`);
}

const stem = () => photo.name.replace(/\.[^.]*$/, "");

function listPeople() {
  const group = element("people");
  const chips = photo.people.map(({ id }) => chip(`Person ${id + 1}`, id));
  group.replaceChildren(...chips);
  if (chips.length > 1) group.append(chip("Everyone", null));
  if (!chips.length) {
    const nobody = document.createElement("p");
    nobody.className = "fine";
    nobody.textContent = "Nobody was found. Click any place to focus on its distance.";
    group.append(nobody);
  }
  element("mode").querySelector("[value=subject]").disabled = !chips.length;
}

function chip(text, id) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.textContent = text;
  button.dataset.person = id ?? "all";
  button.setAttribute("aria-pressed", "false");
  for (const on of ["pointerenter", "focus"]) button.addEventListener(on, () => id !== null && stage.outline(id));
  for (const off of ["pointerleave", "blur"]) button.addEventListener(off, () => stage.outline(null));
  button.addEventListener("click", (event) => choose(id, event.shiftKey || event.ctrlKey || event.metaKey));
  return button;
}

/** A person of the list; with Shift beside those who are sharp already. */
function choose(id, also) {
  if (pull.armed && id !== null) {
    pull.go({ rack_person: id }, stem());
    return;
  }
  if (mode() === "plane") element("mode").querySelector("[value=auto]").checked = true;
  const sharp = also && aim?.person ? aim.person : [];
  const others = sharp.filter((person) => person !== id);
  const chosen = id === null ? photo.people.map((person) => person.id) : sharp.includes(id) && others.length ? others : [...others, id];
  aim = { person: chosen };
  render();
}

// Pictures

/** What `POST /focus` is asked for an aim, at the lens as it is set. */
function parametersOf(where) {
  const modeName = mode();
  const modes = modeName === "auto" ? {} : { mode: modeName };
  if (where.person) return { person: where.person.join(","), ...lens.parameters };
  return { x: where.x, y: where.y, ...modes, ...lens.parameters };
}

let timer = 0;

function renderSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => photo !== null && aim !== null && render(), QUIET_MS);
}

async function render() {
  clearTimeout(timer);
  hush();
  pull.close();
  const asked = parametersOf(aim);
  stage.busy("picture", true);
  if (aim.person) stage.mark(null);
  else stage.mark(aim);
  try {
    const done = await rendering.run(async (signal) => {
      const start = performance.now();
      const answer = await photo.focus({ ...asked, ...LOOK, max_side: stage.side }, signal);
      const blob = await answer.blob();
      signal.throwIfAborted();
      return { answer, blob, seconds: (performance.now() - start) / 1000 };
    });
    if (done === null) return;
    await stage.showAfter(done.blob);
    shot = asked;
    tell(done.answer, done.seconds);
    downloads.write();
    stage.busy("picture", false);
    await layers.update({ focusOnly: true });
  } catch (error) {
    stage.busy("picture", false);
    complain(error, mayHelp(error) ? render : null);
  }
}

/** Says what is in focus, by the answer's own headers. */
function tell(answer, seconds) {
  const people = answer.headers.get("X-Focus-Person");
  const sharp = people === "none" ? [] : people.split(",").map(Number);
  for (const button of element("people").querySelectorAll(".chip")) {
    const id = button.dataset.person;
    const pressed = id === "all" ? sharp.length === photo.people.length && sharp.length > 1 : sharp.includes(Number(id));
    button.setAttribute("aria-pressed", String(pressed));
  }
  const names = sharp.map((id) => id + 1);
  const depth = Math.round(Number(answer.headers.get("X-Focus-Depth")) * 100);
  const what =
    names.length === 0 ? `The distance here is in focus (${depth} of 100, 100 is nearest)`
    : names.length === 1 ? `Person ${names[0]} is in focus`
    : `People ${names.slice(0, -1).join(", ")} and ${names.at(-1)} are in focus`;
  say(`${what} at f/${lens.fNumber}. ${seconds.toFixed(1)} s`);
}

// Controls

element("mode").addEventListener("change", () => {
  if (aim && !aim.person) render();
});
element("compare").addEventListener("change", (event) => stage.compare(event.target.checked));

element("choose").addEventListener("click", () => element("file").click());
element("another").addEventListener("click", () => element("file").click());
for (const id of ["file", "capture"]) {
  element(id).addEventListener("change", (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) open(file);
  });
}
element("example").addEventListener("click", async () => {
  try {
    const answer = await fetch("web/example.webp");
    if (!answer.ok) throw new Error(`the example is not there: ${answer.status}`);
    await open(new File([await answer.blob()], "example.webp", { type: "image/webp" }));
  } catch (error) {
    complain(error);
  }
});

addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  if (file) open(file);
});
let inside = 0;
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (carriesFiles(event) && ++inside === 1) element("drop").hidden = false;
});
addEventListener("dragleave", (event) => {
  if (carriesFiles(event) && --inside === 0) element("drop").hidden = true;
});
addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  inside = 0;
  element("drop").hidden = true;
  const [file] = event.dataTransfer.files;
  if (file) open(file);
});

const dark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};
const nameTheme = () => element("theme").setAttribute("aria-label", `Switch to the ${dark() ? "light" : "dark"} theme`);
element("theme").addEventListener("click", () => {
  const next = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("depthlens.theme", next);
  } catch {
    // storage may be closed to the page: the choice lasts as long as the page
  }
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

downloads.load().catch(complain);
document.documentElement.dataset.ready = "yes";
