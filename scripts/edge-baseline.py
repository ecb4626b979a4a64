#!/usr/bin/env python3
"""Writes the baseline in docs/EDGE.md: scripts/edge-baseline.py STAGES_RUN LOAD_RUN

STAGES_RUN is a run directory of 'edge-stages', LOAD_RUN one of 'edge-stress'. Benchmarks are read
from target/criterion ('cargo bench -p edge-node'). Prints nothing that a run did not measure.
"""
import csv
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The founding baseline: its figure and its target, in nanoseconds.
BENCHMARKS = [
    ("WAF clean request", "waf_clean", 1510, 100_000),
    ("WAF SQLi detection", "waf_sqli", 2440, 100_000),
    ("Route regex match", "route_regex", 65, 1_000),
    ("Route exact match", "route_exact", 18, 1_000),
    ("CRDT increment", "crdt_increment", 23, 1_000),
    ("CRDT merge", "crdt_merge", 46, 1_000),
    ("Cache key", "cache_key", 103, 1_000),
]


def nanoseconds(name):
    file = ROOT / "target/criterion" / name / "new/estimates.json"
    return json.loads(file.read_text())["median"]["point_estimate"]


def shown(nanos):
    return f"{nanos / 1000:.2f} µs" if nanos >= 1000 else f"{nanos:.1f} ns"


def verdict(is_good):
    return "PASS" if is_good else "FAIL"


def benchmarks():
    lines = [
        "### Benchmarks",
        "",
        "| benchmark | measured | founding figure | its target | |",
        "|---|---:|---:|---:|---|",
    ]
    for title, name, figure, target in BENCHMARKS:
        measured = nanoseconds(name)
        is_good = measured <= target / 10
        lines.append(
            f"| {title} | {shown(measured)} | {shown(figure)} | {shown(target)} | {verdict(is_good)} |"
        )
    lines += ["", "PASS: at most a tenth of the target. Harder inputs:", ""]
    lines += ["| benchmark | measured |", "|---|---:|"]
    folder = ROOT / "target/criterion"
    known = {name for _, name, _, _ in BENCHMARKS}
    for file in sorted(folder.glob("**/new/estimates.json")):
        name = json.loads((file.parent / "benchmark.json").read_text())["full_id"]
        if name not in known:
            median = json.loads(file.read_text())["median"]["point_estimate"]
            lines.append(f"| `{name}` | {shown(median)} |")
    return lines


def environment(run):
    manifest = json.loads((run / "manifest.json").read_text())
    machine = manifest["machine"]
    lines = ["### Environment", "", "| | |", "|---|---|"]
    for key in ("cpu", "cpu_model", "cores", "kernel", "memory_kib", "os"):
        if key in machine:
            lines.append(f"| {key} | {machine[key]} |")
    lines.append(f"| revision | `{manifest['git'].get('revision', '')[:12]}` |")
    lines.append(f"| started | {manifest['started']} |")
    return lines


def stages(run):
    rows = list(csv.DictReader((run / "summary.csv").open()))
    cells = sorted(
        {(row["endpoint"], int(row["concurrency"])) for row in rows},
        key=lambda cell: (cell[0] != "/small", cell[1]),
    )
    lines = ["### What each stage costs", ""]
    head = " | ".join(f"{endpoint} c={n}" for endpoint, n in cells)
    for title, column, show in (
        ("RPS vs direct", "rps_ratio", lambda value: f"{100 * float(value):.0f} %"),
        ("hop CPU per request, µs", "cpu_us_per_request_hop", lambda value: f"{float(value):.1f}"),
    ):
        lines += [f"| {title} | {head} |", "|---|" + "---:|" * len(cells)]
        for path in dict.fromkeys(row["path"] for row in rows):
            values = []
            for endpoint, n in cells:
                row = next(
                    row
                    for row in rows
                    if (row["path"], row["endpoint"], row["concurrency"]) == (path, endpoint, str(n))
                )
                values.append(show(row[column]) if row[column] else "")
            if any(values):
                lines.append(f"| {path} | " + " | ".join(values) + " |")
        lines.append("")
    return lines


def load(run):
    lines = [
        "### Load",
        "",
        "| path | stage | due | right answers | failed | p50 | p95 | p99 |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for line in (run / "trials.jsonl").open():
        trial = json.loads(line)
        for planned, stage in zip(trial["stages"], trial["load"]["stages"]):
            due = stage["requests"] + stage["dropped"]
            failed = 100 * (1 - stage["good"] / due) if due else 0
            latency = [stage["latency"].get(f"p{percent}_us") for percent in (50, 95, 99)]
            shown_latency = [f"{value / 1000:.2f} ms" if value else "" for value in latency]
            lines.append(
                f"| {trial['path']} | {planned['name']} | {due} | {stage['good']} | {failed:.2f} % | "
                + " | ".join(shown_latency)
                + " |"
            )
    return lines


def main():
    stages_run, load_run = (pathlib.Path(argument) for argument in sys.argv[1:3])
    text = environment(stages_run) + [""] + load(load_run) + [""] + stages(stages_run) + benchmarks()
    file = ROOT / "docs/EDGE.md"
    begin, end = "<!-- baseline: begin -->\n", "<!-- baseline: end -->"
    before, rest = file.read_text().split(begin)
    _, after = rest.split(end)
    file.write_text(before + begin + "\n" + "\n".join(text) + "\n\n" + end + after)


if __name__ == "__main__":
    main()
