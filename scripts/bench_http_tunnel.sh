#!/usr/bin/env bash
# The main job: builds everything in release and measures what an HTTP tunnel costs.
# Arguments go to 'hopbench run': --quick, --blocks 5, --path tag:outside, --help …
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in cargo cc; do
    if ! command -v "$tool" >/dev/null; then
        echo "error: '$tool' is missing; install a Rust toolchain (rustup) and a C compiler" >&2
        exit 4
    fi
done
cargo build --release --locked
exec "${CARGO_TARGET_DIR:-target}/release/hopbench" run http-tunnel "$@"
