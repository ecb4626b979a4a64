{{HEAD}}
import json
import math
import os
import threading
import time
from base64 import b64decode

import locust
from locust import FastHttpUser, LoadTestShape, events, task
from locust.runners import WorkerRunner

LOAD = {{LOAD}}

# File that the master writes at the end; 'hopbench import' reads it.
RESULTS = os.environ.get("HOPBENCH_EXTERNAL", "hopbench-external.json")


def turns():
    """The kinds of requests in the order of asking: each as often as its weight, spread evenly."""
    requests = LOAD["requests"]
    whole = sum(request["weight"] for request in requests)
    debts = [0] * len(requests)
    asked = [0] * len(requests)
    cycle = []
    for _ in range(whole):
        debts = [debt + request["weight"] for debt, request in zip(debts, requests)]
        kind = debts.index(max(debts))
        debts[kind] -= whole
        cycle.append((kind, asked[kind]))
        asked[kind] += 1
    return cycle


def body(request):
    if request["body_base64"] is not None:
        return b64decode(request["body_base64"])
    return None if request["body"] is None else request["body"].encode()


TURNS = turns()
BODIES = [body(request) for request in LOAD["requests"]]


def next_request(number):
    """The request with this number: its kind, and the index of its target."""
    kind, before = TURNS[number % len(TURNS)]
    request = LOAD["requests"][kind]
    count = number // len(TURNS) * request["weight"] + before
    return kind, count % len(request["targets"])


class Figures:
    """Counts, and a histogram of right answers in microseconds, to three significant digits.

    Locust itself rounds response times to milliseconds.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.take()

    def take(self):
        """Returns what was counted as plain data, and begins anew."""
        with self.lock:
            taken = dict(getattr(self, "counted", {}))
            taken["histogram"] = list(taken.get("histogram", {}).items())
            self.counted = {
                "requests": 0, "failures": 0, "max_us": 0.0, "first": None, "last": None,
                "histogram": {},
            }
        return taken

    def add(self, started, milliseconds, is_right):
        counted = self.counted
        with self.lock:
            counted["requests"] += 1
            counted["first"] = started if counted["first"] is None else counted["first"]
            counted["last"] = started
            if not is_right:
                counted["failures"] += 1
                return
            us = milliseconds * 1000
            counted["max_us"] = max(counted["max_us"], us)
            unit = 10 ** max(math.floor(math.log10(max(us, 1))) - 2, 0)
            rounded = int(round(us / unit) * unit)
            counted["histogram"][rounded] = counted["histogram"].get(rounded, 0) + 1

    def merge(self, other):
        counted = self.counted
        with self.lock:
            for name in ("requests", "failures"):
                counted[name] += other[name]
            counted["max_us"] = max(counted["max_us"], other["max_us"])
            for name, choose in (("first", min), ("last", max)):
                known = [it for it in (counted[name], other[name]) if it is not None]
                counted[name] = choose(known) if known else None
            for us, count in other["histogram"]:
                counted["histogram"][us] = counted["histogram"].get(us, 0) + count

    def percentile(self, share):
        """The smallest value that this share of the right answers did not exceed."""
        histogram = self.counted["histogram"]
        left = math.ceil(sum(histogram.values()) * share)
        for us in sorted(histogram):
            left -= histogram[us]
            if left <= 0:
                return us
        return None


OWN = Figures()
ALL = Figures()
WORKERS = set()


@events.request.add_listener
def on_request(start_time=None, response_time=0, exception=None, **_):
    OWN.add(start_time or time.time(), response_time, exception is None)


@events.report_to_master.add_listener
def on_report_to_master(client_id, data):
    data["hopbench"] = OWN.take()


@events.worker_report.add_listener
def on_worker_report(client_id, data):
    WORKERS.add(client_id)
    ALL.merge(data["hopbench"])


@events.quitting.add_listener
def on_quitting(environment, **_):
    if isinstance(environment.runner, WorkerRunner):
        return
    ALL.merge(OWN.take())
    counted = ALL.counted
    if counted["requests"] == 0:
        return
    duration = max(counted["last"] - counted["first"], 0.001)
    results = {
        "schema": 1,
        "engine": "locust",
        "engine_version": locust.__version__,
        "scenario": LOAD["scenario"],
        "target": environment.host or Requests.host,
        "generators": max(len(WORKERS), 1),
        "duration_s": round(duration, 3),
        "requests": counted["requests"],
        "failures": counted["failures"],
        "rate_rps": round(counted["requests"] / duration, 3),
        "p50_us": ALL.percentile(0.5),
        "p95_us": ALL.percentile(0.95),
        "p99_us": ALL.percentile(0.99),
        "max_us": round(counted["max_us"]) if counted["histogram"] else None,
    }
    with open(RESULTS, "w") as file:
        json.dump(results, file, indent=2)
        file.write("\n")


class Requests(FastHttpUser):
    """A connection. At a rate, each sends its share of the requests, and waits for each answer."""

    host = os.environ.get("TARGET", LOAD["target"])
    network_timeout = connection_timeout = LOAD["timeout_s"]
    started = 0
    asked = 0

    def on_start(self):
        number = Requests.started
        Requests.started += 1
        rate = LOAD["per_user_rps"]
        if rate is not None:
            # Users that are started together must not ask together, on any worker.
            worker = getattr(self.environment.runner, "worker_index", 0)
            phase = (number * 0.6180339887 + worker * 0.4142135624) % 1
            time.sleep((phase - time.time() * rate) % 1 / rate)
        self.due = time.perf_counter()

    def wait_time(self):
        """As 'constant_throughput', but a user that was late catches up, by a second at most."""
        if LOAD["per_user_rps"] is None:
            return LOAD["think_time_s"]
        now = time.perf_counter()
        self.due = max(self.due + 1 / LOAD["per_user_rps"], now - 1)
        return max(self.due - now, 0)

    @task
    def ask(self):
        kind, index = next_request(Requests.asked)
        Requests.asked += 1
        request = LOAD["requests"][kind]
        expect = request["expect"][index % len(request["expect"])]
        with self.client.request(
            request["method"],
            request["targets"][index],
            name=request["name"],
            data=BODIES[kind],
            headers=request["headers"],
            allow_redirects=False,
            catch_response=True,
        ) as response:
            length = len(response.content or b"")
            if response.status_code != expect["status"]:
                response.failure(f"status {response.status_code}, expected {expect['status']}")
            elif expect["length_bytes"] not in (None, length):
                response.failure(f"{length} bytes, expected {expect['length_bytes']}")
            else:
                response.success()


class Stages(LoadTestShape):
    """The stages, in steps of a second."""

    def tick(self):
        elapsed = self.get_run_time()
        for stage in LOAD["stages"]:
            if elapsed < stage["duration_s"]:
                share = elapsed / stage["duration_s"]
                users = round(stage["from_users"] + (stage["to_users"] - stage["from_users"]) * share)
                return users, max(LOAD["users"], 1)
            elapsed -= stage["duration_s"]
        return None
