#!/usr/bin/env python3
"""Compares instruction counts of the edge node's parts: scripts/instructions.py [REVISION]

Counts the instructions of 'cargo bench -p edge-node --bench instructions' twice for this tree and
once for REVISION (HEAD if there is none), and prints a table. A part that got more than
LIMIT_PERCENT slower, and by more than two counts of this tree differ, makes it fail with 1. Needs
valgrind, and gungraun-runner in the version that '--version' prints.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_PERCENT = 2.0


def version():
    """The version of gungraun in Cargo.lock, which its runner must have."""
    lock = (ROOT / "Cargo.lock").read_text()
    return re.search(r'name = "gungraun"\nversion = "([^"]+)"', lock).group(1)


def count(tree, target):
    """Instructions by benchmark, of the sources in 'tree'."""
    command = ["cargo", "bench", "-q", "--locked", "-p", "edge-node", "--bench", "instructions"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n'{' '.join(command)}' failed with {done.returncode}")
    counts = {}
    for file in sorted((target / "gungraun").glob("**/callgrind.*.out")):
        text = file.read_text()
        events = re.search(r"^events: (.*)$", text, re.M).group(1).split()
        totals = re.search(r"^(?:totals|summary): (.*)$", text, re.M).group(1).split()
        counts[file.parent.name] = int(totals[events.index("Ir")])
    if not counts:
        sys.exit(f"there are no counts below '{target}/gungraun'")
    return counts


def base(revision):
    """Instructions by benchmark at a revision; nothing if it has none to count."""
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, revision], check=True)
        try:
            if not (tree / "crates/hops/edge-node/benches/instructions.rs").exists():
                return {}
            return count(tree, ROOT / "target/instructions-base")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], check=True)


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(version())
        return
    if len(arguments) > 1 or arguments and arguments[0].startswith("-"):
        sys.exit(__doc__)
    os.chdir(ROOT)
    revision = arguments[0] if arguments else "HEAD"
    before = base(revision)
    target = ROOT / "target/instructions"
    first, second = count(ROOT, target), count(ROOT, target)
    print(f"| instructions | {revision[:12]} | this tree | again | change | |")
    print("|---|---:|---:|---:|---:|---|")
    is_slower = False
    for name in first:
        now, noise = min(first[name], second[name]), abs(first[name] - second[name])
        change, verdict = "", "new"
        if name in before:
            percent = 100 * (now / before[name] - 1)
            failed = percent > LIMIT_PERCENT and now - before[name] > noise
            is_slower |= failed
            change, verdict = f"{percent:+.1f} %", "FAIL" if failed else "PASS"
        was = before.get(name, "")
        print(f"| {name} | {was} | {first[name]} | {second[name]} | {change} | {verdict} |")
    sys.exit(is_slower)


if __name__ == "__main__":
    main()
