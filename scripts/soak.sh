#!/usr/bin/env bash
# The long forms of the soak, kill and overload tests, for each transport. They take some two hours
# without arguments; scripts/soak.sh SECONDS CONNECTIONS CHURN BODIES KILLS STORM SLOW_READERS:
#   SECONDS       how long random traffic goes on for each kind of origin, at least
#   CONNECTIONS   number of connections that are open at once
#   CHURN         number of connections that are opened one after another
#   BODIES        number of bodies that the random traffic must bring back, at least
#   KILLS         number of kills with signal 9: half of the host, half of the plugin
#   STORM         number of connections opened at once, while 50 are served at a time
#   SLOW_READERS  number of clients that read a byte per second, beside others whose pace is
#                 measured in nine rounds
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
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
    cargo test --release --locked -p tunnel --test "$suite" -- --nocapture --test-threads=1
done
