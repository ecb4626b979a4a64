// Made by 'hopbench export k6 edge-stress'; make it again rather than edit it.
// How does the edge node take a peak of 50,000 requests per second, and how soon is it over?
import encoding from 'k6/encoding';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const TARGET = __ENV.TARGET || "http://127.0.0.1:8080";

/** @type {import('k6/options').Options} */
export const options = {
  "scenarios": {
    "load": {
      "executor": "ramping-arrival-rate",
      "gracefulStop": "5s",
      "maxVUs": 512,
      "preAllocatedVUs": 512,
      "stages": [
        {
          "duration": "20s",
          "target": 10000
        },
        {
          "duration": "10s",
          "target": 50000
        },
        {
          "duration": "10s",
          "target": 50000
        },
        {
          "duration": "0s",
          "target": 10000
        },
        {
          "duration": "30s",
          "target": 10000
        }
      ],
      "startRate": 10000,
      "timeUnit": "1s"
    }
  },
  "summaryTrendStats": [
    "avg",
    "min",
    "p(50)",
    "p(90)",
    "p(95)",
    "p(99)",
    "max"
  ],
  "thresholds": {
    "dropped_iterations": [
      "count<=0"
    ],
    "failures": [
      "count<=0"
    ]
  }
};

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {number | null} length_bytes
 *
 * @typedef {object} Kind
 * @property {string} name
 * @property {string} method
 * @property {string[]} targets
 * @property {Record<string, string>} headers
 * @property {string | null} body
 * @property {string | null} body_base64
 * @property {number} weight
 * @property {Answer[]} expect
 */

/** @type {Kind[]} */
const REQUESTS = [
  {
    "body": null,
    "body_base64": null,
    "expect": [
      {
        "length_bytes": 2,
        "status": 200
      }
    ],
    "headers": {
      "accept": "*/*",
      "accept-encoding": "identity"
    },
    "method": "GET",
    "name": "/small",
    "targets": [
      "/small"
    ],
    "weight": 1
  }
];

// Requests with the right answer and without it, and the latencies of right answers.
const right = new Counter('right');
const failures = new Counter('failures');
const rightAnswers = new Trend('right_answers', true);

const BODIES = REQUESTS.map((request) =>
  request.body_base64 === null ? request.body : encoding.b64decode(request.body_base64),
);
const TURNS = turns();

/**
 * The kinds of requests in the order of asking: each as often as its weight, spread evenly.
 */
function turns() {
  const whole = REQUESTS.reduce((sum, request) => sum + request.weight, 0);
  const debts = REQUESTS.map(() => 0);
  const asked = REQUESTS.map(() => 0);
  const cycle = [];
  for (let turn = 0; turn < whole; turn += 1) {
    REQUESTS.forEach((request, kind) => (debts[kind] += request.weight));
    const kind = debts.indexOf(Math.max(...debts));
    debts[kind] -= whole;
    cycle.push({ kind, before: asked[kind] });
    asked[kind] += 1;
  }
  return cycle;
}

export default function () {
  const number = exec.scenario.iterationInTest;
  const { kind, before } = TURNS[number % TURNS.length];
  const request = REQUESTS[kind];
  const count = Math.floor(number / TURNS.length) * request.weight + before;
  const index = count % request.targets.length;
  const expect = request.expect[index % request.expect.length];
  const response = http.request(request.method, TARGET + request.targets[index], BODIES[kind], {
    headers: request.headers,
    redirects: 0,
    responseType: 'binary',
    responseCallback: http.expectedStatuses(expect.status),
    tags: { name: request.name },
    timeout: 5000,
  });
  const length = response.body === null ? 0 : response.body.byteLength;
  const isRight =
    response.status === expect.status &&
    (expect.length_bytes === null || expect.length_bytes === length);
  right.add(isRight ? 1 : 0);
  failures.add(isRight ? 0 : 1);
  if (isRight) {
    rightAnswers.add(response.timings.duration);
  }
}

/**
 * Writes what 'hopbench import' reads, and prints it.
 *
 * @param {{ metrics: Record<string, { values: Record<string, number> } | undefined>,
 *   state: { testRunDurationMs: number } }} data
 */
export function handleSummary(data) {
  /** @type {(metric: string, name: string) => number | null} */
  const value = (metric, name) => {
    const found = data.metrics[metric];
    return found === undefined || found.values[name] === undefined ? null : found.values[name];
  };
  /** @type {(name: string) => number | null} */
  const us = (name) => {
    const milliseconds = value('right_answers', name);
    return milliseconds === null ? null : Math.round(milliseconds * 1000);
  };
  const requests = value('http_reqs', 'count') || 0;
  const seconds = data.state.testRunDurationMs / 1000;
  const results = {
    schema: 1,
    engine: 'k6',
    engine_version: null,
    scenario: "edge-stress",
    target: TARGET,
    generators: 1,
    duration_s: seconds,
    requests,
    failures: value('failures', 'count') || 0,
    dropped: value('dropped_iterations', 'count') || 0,
    rate_rps: requests / seconds,
    p50_us: us('p(50)'),
    p95_us: us('p(95)'),
    p99_us: us('p(99)'),
    max_us: us('max'),
  };
  const text = `${JSON.stringify(results, null, 2)}\n`;
  return { 'hopbench-external.json': text, stdout: text };
}
