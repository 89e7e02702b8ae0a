// Posts one photo again and again, as told by the plan in $PLAN (see load.py), and writes what was seen to $OUT.
//
// What this costs is taken from what it measures, so that nothing is made anew for each request, and nothing noted that
// nobody reads.
import { sleep } from "k6";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";

const plan = JSON.parse(open(__ENV.PLAN));
const photo = open(plan.photo, "b");

const streams = {};
for (const [name, { url, clients, timeout }] of Object.entries(plan.streams)) {
  const asked = (headers) => ({
    headers: { "Content-Type": "image/jpeg", ...headers },
    timeout,
    responseCallback: null,
  });
  streams[name] = { url, clients: clients.map(asked), unhelpful: new Counter(`${name}_unhelpful`) };
  for (const kind of ["ok", "shed", "failed"]) {
    streams[name][kind] = new Trend(`${name}_${kind}`, true);
  }
}

export const options = {
  discardResponseBodies: true,
  systemTags: [],
  scenarios: Object.fromEntries(
    Object.entries(plan.streams).map(([name, stream]) => [
      name,
      { ...stream.scenario, exec: "ask", env: { STREAM: name }, gracefulStop: "10s" },
    ]),
  ),
  summaryTrendStats: ["count", "min", "med", "p(95)", "p(99)", "max"],
};

// What k6 does before and after the load itself is told apart by these lines; setup runs when all VUs are there.
export function setup() {
  // More than $GOMEMLIMIT: from here on memory is taken from what has been used and collected, not from the system, which
  // clears every page before it hands it out.
  for (let number = 0; number < plan.warm_mib / 32; number++) {
    "x".repeat(2 ** 16).repeat(2 ** 9);
  }
  console.log("the load begins");
}

export function teardown() {
  console.log("the load ends");
  sleep(0.5); // somebody reads its processor time now
}

let sent = 0; // by this VU

export function ask() {
  const stream = streams[__ENV.STREAM];
  const client = stream.clients[(__VU + sent++) % stream.clients.length];
  const answer = http.post(stream.url, photo, client);
  const kind = answer.status === 200 ? "ok" : answer.status === 503 || answer.status === 429 ? "shed" : "failed";
  stream[kind].add(answer.timings.blocked + answer.timings.duration);
  if (kind === "shed" && !(Number(answer.headers["Retry-After"]) >= 1)) {
    stream.unhelpful.add(1);
  }
}

export function handleSummary(data) {
  return { [__ENV.OUT]: JSON.stringify({ metrics: data.metrics }) };
}
