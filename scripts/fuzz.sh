#!/usr/bin/env bash
# Fuzzes one target for so many seconds, with address sanitizer: scripts/fuzz.sh TARGET SECONDS
# Needs a nightly toolchain and cargo-fuzz. What is found is kept under fuzz/artifacts.
set -euo pipefail

target=${1:?"expected a target: ring_host or ring_plugin"}
seconds=${2:?"expected a number of seconds"}
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed: cargo install cargo-fuzz --locked" >&2
    exit 2
fi
mkdir -p "corpus/$target"
# Something long to begin with: what is short makes few moves.
if [ ! -e "corpus/$target/long" ]; then
    head -c 3200 /dev/urandom > "corpus/$target/long"
fi
exec cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=8192 \
    -len_control=0 -timeout=60 -rss_limit_mb=4096 -verbosity=0
