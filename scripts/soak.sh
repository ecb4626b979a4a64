#!/usr/bin/env bash
# The long forms of the soak, kill and overload tests, for each transport. Without arguments some
# two hours; scripts/soak.sh SECONDS CONNECTIONS CHURN BODIES KILLS STORM SLOW_READERS:
#   SECONDS       of random traffic, for each kind of origin, and at least so many
#   BODIES        that come back right
#   CONNECTIONS   at once, and
#   CHURN         one after another
#   KILLS         with 9, half of them of the host, half of the plugin
#   STORM         connections opened at once where 50 are served at a time
#   SLOW_READERS  of a byte a second, beside others whose pace is measured in nine rounds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export HOPBENCH_SOAK_SECONDS="${1:-600}"
export HOPBENCH_SOAK_CONNECTIONS="${2:-4096}"
export HOPBENCH_SOAK_CHURN="${3:-100000}"
export HOPBENCH_SOAK_BODIES="${4:-0}"
export HOPBENCH_KILLS="${5:-500}"
export HOPBENCH_STORM="${6:-10000}"
export HOPBENCH_SLOW_READERS="${7:-1000}"
export HOPBENCH_OVERLOAD_ROUNDS=9 HOPBENCH_OVERLOAD_MS=2000
ulimit -n "$(ulimit -Hn)"
cargo build --workspace --release --locked
for suite in soak kills overload; do
    cargo test --release --locked -p hopbench --test "$suite" -- --nocapture --test-threads=1
done
