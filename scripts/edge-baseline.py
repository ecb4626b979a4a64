#!/usr/bin/env python3
"""Writes the baseline in docs/EDGE.md: scripts/edge-baseline.py STAGES_RUN PROFILE_RUN LOAD_RUN...

STAGES_RUN is a run directory of 'edge-stages', PROFILE_RUN one of 'hopbench profile edge-full', and
each LOAD_RUN one of 'edge-quick', 'edge-load', 'edge-stress' or 'edge-soak'. Benchmarks are read from
target/criterion ('cargo bench -p edge-node --bench edge'). Prints nothing that a run did not measure.

Without arguments, it prints the benchmarks, and fails if one takes more than a tenth of its target.
"""
import collections
import csv
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOPBENCH = ROOT / "target/release/hopbench"
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
    paths = list(dict.fromkeys(row["path"] for row in rows))
    by_cell = {(row["path"], row["endpoint"], int(row["concurrency"])): row for row in rows}
    for title, column, show in (
        ("RPS vs direct", "rps_ratio", lambda value: f"{100 * float(value):.0f} %"),
        ("hop CPU, µs", "cpu_us_per_request_hop", lambda value: f"{float(value):.1f}"),
    ):
        shown_paths = [path for path in paths if by_cell[(path, *cells[0])][column]]
        lines += [f"| {title} | " + " | ".join(shown_paths) + " |"]
        lines += ["|---|" + "---:|" * len(shown_paths)]
        for endpoint, n in cells:
            values = (show(by_cell[(path, endpoint, n)][column]) for path in shown_paths)
            lines.append(f"| {endpoint} c={n} | " + " | ".join(values) + " |")
        lines.append("")
    return lines


# Components by what the names of their functions begin with; the first that fits is taken.
COMPONENTS = [
    ("WAF", ("edge_node::waf", "libinjectionrs", "aho_corasick", "regex_automata")),
    ("routes", ("edge_node::routes", "edge_node::path")),
    ("limits", ("edge_node::rate_limit", "edge_node::crdt", "edge_node::cluster")),
    ("cache", ("edge_node::cache_key", "edge_node::fill", "replay_proxy")),
    ("HTTP", ("http_proxy", "edge_node", "hyper", "httparse", "http::")),
    ("runtime", ("tokio", "mio", "std::", "core::", "alloc::")),
]


def component(stack):
    """The component that a stack's innermost known function belongs to."""
    frames = stack.split(";")[1:]
    if frames and frames[-1].endswith("_[k]"):
        calls = [frame for frame in frames if frame.startswith(("__x64_sys", "do_syscall"))]
        return "kernel" if calls else "kernel, interrupts"
    for frame in reversed(frames):
        for name, beginnings in COMPONENTS:
            if frame.lstrip("<&").startswith(beginnings):
                return name
    return "other"


def profile(run):
    profiles = json.loads((run / "profiles.json").read_text())
    lines = ["### Where the CPU time goes", "", "Samples of the hop's processes, in percent.", ""]
    shares = []
    for entry in (entry for entry in profiles if "hop" in entry["roles"]):
        stacks = entry["roles"]["hop"]["stacks"]
        counts = collections.Counter()
        for stack, samples in stacks.items():
            counts[component(stack)] += samples
        shares.append((entry["cell"], counts))
    heads = [f"{cell['path']} {cell['endpoint']} c={cell['concurrency']}" for cell, _ in shares]
    lines += ["| component | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(shares)]
    names = collections.Counter()
    for _, counts in shares:
        names.update(counts)
    for name, _ in names.most_common():
        values = (f"{100 * counts[name] / counts.total():.1f}" for _, counts in shares)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return lines


# The founding baseline's targets for a load.
FAILED_PERCENT_MAX = 5


def load(runs):
    lines = [
        "### Load",
        "",
        "| scenario | path | stage | due | right | failed | p50, ms | p95 | p99 | |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for run in runs:
        for line in (run / "trials.jsonl").open():
            trial = json.loads(line)
            if trial["twin"]:
                continue
            for planned, stage in zip(trial["stages"], trial["load"]["stages"]):
                due = stage["requests"] + stage["dropped"]
                failed = 100 * (1 - stage["good"] / due) if due else 0
                latency = [stage["latency"].get(f"p{percent}_us") for percent in (50, 95, 99)]
                shown_latency = [f"{value / 1000:.2f}" if value else "" for value in latency]
                lines.append(
                    f"| {trial['scenario']} | {trial['path']} | {planned['name']} | {due} "
                    f"| {stage['good']} | {failed:.2f} % | "
                    + " | ".join(shown_latency)
                    + f" | {verdict(failed < FAILED_PERCENT_MAX)} |"
                )
    return lines + [""] + memory(runs) + recovery(runs)


def memory(runs):
    """Returns the peaks of the node's own memory, without the origin's."""
    lines = ["| scenario | path | peak RSS of the hop, MiB |", "|---|---|---:|"]
    for run in runs:
        for line in (run / "trials.jsonl").open():
            trial = json.loads(line)
            peaks = [it["rss_peak_kib"] for it in trial["processes"] if it["role"] == "hop"]
            if peaks:
                peak = sum(peaks) / 1024
                lines.append(f"| {trial['scenario']} | {trial['path']} | {peak:.1f} |")
    return lines


def recovery(runs):
    """Returns the tables of recovery, as the reports of the runs have them."""
    lines = []
    for run in runs:
        command = [HOPBENCH, "report", run, "--format", "md"]
        page = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        _, found, rest = page.partition("### Recovery")
        if found:
            section = rest.split("\n#")[0].splitlines()
            lines += ["", *(line for line in section if line.startswith("|"))]
    return lines


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    if len(sys.argv) == 1:
        lines = benchmarks()
        print("\n".join(lines))
        sys.exit(any(line.endswith(" FAIL |") for line in lines))
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    stages_run, profile_run, *load_runs = (pathlib.Path(argument) for argument in sys.argv[1:])
    text = environment(stages_run) + [""] + load(load_runs) + [""] + stages(stages_run)
    text += profile(profile_run) + [""] + benchmarks()
    file = ROOT / "docs/EDGE.md"
    begin, end = "<!-- baseline: begin -->\n", "<!-- baseline: end -->"
    before, rest = file.read_text().split(begin)
    _, after = rest.split(end)
    file.write_text(before + begin + "\n" + "\n".join(text) + "\n\n" + end + after)


if __name__ == "__main__":
    main()
