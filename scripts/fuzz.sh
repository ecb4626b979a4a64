#!/usr/bin/env bash
# Fuzzes one target with address sanitizer: scripts/fuzz.sh TARGET SECONDS
# Needs a nightly toolchain and cargo-fuzz. It starts from the inputs in fuzz/seeds, keeps new ones
# under fuzz/corpus, and those that fail under fuzz/artifacts.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

targets=$(cd fuzz_targets && printf '%s ' *.rs | sed 's/\.rs//g')
target=${1:?"expected a target, one of: $targets"}
seconds=${2:?"expected a number of seconds"}

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed: cargo install cargo-fuzz --locked" >&2
    exit 2
fi
mkdir -p "corpus/$target"
# Start with a long input, too: a short one makes few moves.
if [ ! -e "corpus/$target/long" ]; then
    head -c 3200 /dev/urandom > "corpus/$target/long"
fi
seeds=()
[ ! -d "seeds/$target" ] || seeds=("seeds/$target")
exec cargo +nightly fuzz run "$target" "corpus/$target" "${seeds[@]}" -- \
    -max_total_time="$seconds" -max_len=8192 -len_control=0 -timeout=60 -rss_limit_mb=2048 \
    -malloc_limit_mb=256 -verbosity=0 -print_final_stats=1
