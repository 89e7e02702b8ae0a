// Requests to the gateway: problems in words, keys, waiting as long as Retry-After says.

const KEY = "depthlens.key";
const MOST_TRIES = 6;
const PAUSES_MS = [200, 800, 0]; // behind each of three connections that fail

/** What went wrong, as RFC 9457 problem details say it; `code` is for programs, `detail` for people. */
export class Problem extends Error {
  constructor({ status = 0, code = "unreachable", title, detail, retryAfterS = null }) {
    super(detail);
    Object.assign(this, { status, code, title, detail, retryAfterS });
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The path with its query; parameters that are null are left out. */
export function address(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined) query.set(name, value);
  const text = query.toString().replaceAll("%2C", ",");
  return text ? `${path}?${text}` : path;
}

/**
 * Asks until there is an answer, a reason why there is none, or nobody who waits.
 *
 * @param {string} path relative to this page, with its query
 * @param {Blob|null} body the photo, or nothing where a scene stands for it
 * @param {AbortSignal} signal
 * @param {{key: (problem: Problem) => Promise<string|null>, wait: (problem: Problem, signal: AbortSignal) => Promise<void>}} human
 *   asked for a key, and told to wait
 */
export async function ask(path, body, signal, human) {
  for (let tries = 1; ; tries++) {
    try {
      return await once(path, body, signal);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status === 401) {
        const given = await human.key(error);
        signal.throwIfAborted();
        if (given === null) throw error;
        tries = 0;
      } else if (error.retryAfterS !== null && tries < MOST_TRIES) {
        await human.wait(error, signal);
      } else {
        throw error;
      }
    }
  }
}

async function once(path, body, signal) {
  const headers = {};
  if (key.get()) headers["X-API-Key"] = key.get();
  if (body) headers["Content-Type"] = body.type.startsWith("image/") ? body.type : "application/octet-stream";
  const answer = await sent(path, { method: "POST", headers, body, signal });
  if (answer.ok) return answer;
  throw await problemOf(answer);
}

/** A request changes nothing on the server, so it may go twice: telephones change networks in mid-air. */
async function sent(path, request) {
  for (const pause of PAUSES_MS) {
    try {
      return await fetch(path, request);
    } catch (error) {
      if (request.signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
      request.signal.throwIfAborted();
    }
  }
  throw new Problem({ title: "The server does not answer", detail: "Is it running, and are you connected? Try again." });
}

async function problemOf(answer) {
  const said = await answer.json().catch(() => ({}));
  const seconds = Number.parseFloat(answer.headers.get("Retry-After"));
  return new Problem({
    status: answer.status,
    code: said.code ?? "unknown",
    title: said.title ?? `The server answered ${answer.status}`,
    detail: said.detail ?? "It did not say why. Try again.",
    retryAfterS: Number.isFinite(seconds) ? Math.max(seconds, 0) : null,
  });
}

/** Runs one job at a time: a new one aborts the one before it, so that the latest wins. */
export class Latest {
  #controller = null;

  /** The job's result; null when a later one took its place. */
  async run(job) {
    this.abort();
    const controller = (this.#controller = new AbortController());
    try {
      const result = await job(controller.signal);
      return controller.signal.aborted ? null : result;
    } catch (error) {
      if (controller.signal.aborted) return null;
      throw error;
    } finally {
      if (this.#controller === controller) this.#controller = null;
    }
  }

  abort() {
    this.#controller?.abort();
    this.#controller = null;
  }
}
