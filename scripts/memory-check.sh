#!/usr/bin/env bash
# Runs the tests of the shared memory and of the tunnel under address sanitizer and valgrind, and
# the models of the rings' sync edges under thread sanitizer.
# Needs a nightly toolchain and valgrind. Arguments: asan, tsan, memcheck; by default all three.
# Helgrind is of no use: it knows neither atomics nor locks that are made of them, and takes every
# use of them for a race. loom checks interleavings.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=("$@")
[[ ${#tools[@]} -gt 0 ]] || tools=(asan tsan memcheck)
target=x86_64-unknown-linux-gnu

asan() {
    PROPTEST_CASES=32 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/asan \
        cargo +nightly test -p shm-ring -p tunnel --lib --locked --target "$target"
}

# The standard library isn't built here, so it has no sanitizer in it, and reports about its test
# harness are suppressed. The workflow 'safety' builds it, and runs everything.
tsan() {
    TSAN_OPTIONS="suppressions=$PWD/scripts/thread-sanitizer.supp" \
        RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer" \
        CARGO_TARGET_DIR=target/tsan \
        cargo +nightly test -p shm-ring --lib --locked --target "$target" models -- --test-threads=1
}

# Prints the path of a crate's test program.
program() {
    cargo test -p "$1" --lib --no-run --locked --message-format=json 2>/dev/null |
        python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("profile", {}).get("test") and message.get("executable"):
        print(message["executable"])
'
}

memcheck() {
    for crate in shm-ring tunnel; do
        HOPBENCH_HOSTILE_ROUNDS=20 PROPTEST_CASES=8 valgrind --quiet --error-exitcode=9 \
            --leak-check=full --show-leak-kinds=definite \
            --errors-for-leak-kinds=definite "$(program "$crate")"
    done
}

for tool in "${tools[@]}"; do
    case $tool in
        asan | tsan | memcheck) echo "== $tool" && "$tool" ;;
        *) echo "unknown tool '$tool', expected asan, tsan or memcheck" >&2 && exit 2 ;;
    esac
done
