// What the page says to the visitor, and asks: status, problems, waiting, keys.

import { Problem, key } from "./api.js";

const element = (id) => document.getElementById(id);

export function say(text) {
  element("status").textContent = text;
}

/** Shows what went wrong, in words; `retry` is offered where there is one. */
export function complain(error, retry = null) {
  console.assert(error instanceof Error);
  const known = error instanceof Problem;
  if (!known) console.error(error);
  show(known ? error.title : "This page failed", known ? error.detail : String(error.message ?? error), retry);
}

export function hush() {
  element("message").hidden = true;
}

function show(title, detail, retry) {
  element("message-title").textContent = title;
  element("message-detail").textContent = detail;
  element("message-wait").hidden = true;
  element("message-retry").hidden = retry === null;
  element("message-retry").onclick = () => {
    hush();
    retry();
  };
  element("message").hidden = false;
}

element("message-close").addEventListener("click", hush);

/** For `ask`: waits as long as the server asks for, with a countdown, or until the visitor is impatient. */
async function wait(problem, signal) {
  const until = performance.now() + problem.retryAfterS * 1000;
  await new Promise((resolve, reject) => {
    const tick = setInterval(() => {
      const left = Math.ceil((until - performance.now()) / 1000);
      if (left <= 0) end(resolve);
      else element("message-wait").textContent = `Trying again in ${left} s.`;
    }, 200);
    const end = (settle) => {
      clearInterval(tick);
      signal.removeEventListener("abort", leave);
      hush();
      settle(signal.reason);
    };
    const leave = () => end(reject);
    signal.addEventListener("abort", leave);
    show(problem.title, problem.detail, () => end(resolve)); // "Try again" then means: now
    element("message-wait").textContent = `Trying again in ${Math.ceil(problem.retryAfterS)} s.`;
    element("message-wait").hidden = false;
  });
}

let asking = null;

/** For `ask`: the key of this tab; null when the visitor has none. */
function askKey(problem) {
  asking ??= new Promise((resolve) => {
    const dialog = element("key-dialog");
    element("key-detail").textContent = problem.detail;
    element("key").value = "";
    const given = key.get();
    key.forget();
    element("key-title").textContent = given ? "That key does not open this server" : "This server wants a key";
    element("key-form").onsubmit = () => key.set(element("key").value.trim());
    element("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(key.get());
    dialog.showModal();
  }).finally(() => (asking = null));
  return asking;
}

export const human = { key: askKey, wait };
