// Posts one photo again and again, as told by the plan in $PLAN (see load.py), and writes what was seen to $OUT.
import { sleep } from "k6";
import { scenario } from "k6/execution";
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";

const plan = JSON.parse(open(__ENV.PLAN));
const photo = open(plan.photo, "b");

const seen = {};
for (const name of Object.keys(plan.streams)) {
  for (const kind of ["ok", "shed", "failed"]) {
    seen[`${name} ${kind}`] = new Trend(`${name}_${kind}`, true);
  }
  seen[`${name} unhelpful`] = new Counter(`${name}_unhelpful`);
}

export const options = {
  discardResponseBodies: true,
  scenarios: Object.fromEntries(
    Object.entries(plan.streams).map(([name, stream]) => [name, { ...stream.scenario, exec: "ask", gracefulStop: "10s" }]),
  ),
  summaryTrendStats: ["count", "min", "med", "p(95)", "p(99)", "max"],
};

// What k6 does before and after the load itself is told apart by these lines; setup runs when all VUs are there.
export function setup() {
  console.log("the load begins");
}

export function teardown() {
  console.log("the load ends");
  sleep(0.5); // somebody reads its processor time now
}

export function ask() {
  const { url, clients, timeout } = plan.streams[scenario.name];
  const headers = clients[scenario.iterationInTest % clients.length];
  const answer = http.post(url, photo, { headers: { "Content-Type": "image/jpeg", ...headers }, timeout });
  const kind = answer.status === 200 ? "ok" : answer.status === 503 || answer.status === 429 ? "shed" : "failed";
  seen[`${scenario.name} ${kind}`].add(answer.timings.blocked + answer.timings.duration);
  if (kind === "shed" && !(Number(answer.headers["Retry-After"]) >= 1)) {
    seen[`${scenario.name} unhelpful`].add(1);
  }
}

export function handleSummary(data) {
  return { [__ENV.OUT]: JSON.stringify({ metrics: data.metrics }) };
}
