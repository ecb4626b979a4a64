#!/usr/bin/env bash
# The long forms of the soak tests, for each transport: random traffic for each kind of origin, ten
# minutes and at least so many bodies that come back right; 4,096 connections at once; 100,000 one
# after another. Arguments: seconds, connections, churn, bodies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export HOPBENCH_SOAK_SECONDS="${1:-600}"
export HOPBENCH_SOAK_CONNECTIONS="${2:-4096}"
export HOPBENCH_SOAK_CHURN="${3:-100000}"
export HOPBENCH_SOAK_BODIES="${4:-0}"
ulimit -n "$(ulimit -Hn)"
cargo build --workspace --release --locked
cargo test --release --locked -p hopbench --test soak -- --nocapture --test-threads=1
