#!/usr/bin/env bash
# The main job: builds everything in release, and measures what an HTTP tunnel costs.
#
#     ./scripts/bench_http_tunnel.sh [OPTION]…
#
# On two cores, the first build takes 4 to 14 minutes, and the measurement 11. Options are those of
# 'hopbench run http-tunnel':
#
#     --quick              measure each cell once and briefly, for a first look
#     --blocks 5           measure each cell in this many blocks
#     --path tag:outside   measure these paths instead
#
# Once it is built, './target/release/hopbench run --help' lists them all.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in cargo cc; do
    if ! command -v "$tool" >/dev/null; then
        echo "error: '$tool' is missing; install a Rust toolchain (rustup) and a C compiler" >&2
        exit 4
    fi
done
cargo build --release --locked
exec "${CARGO_TARGET_DIR:-target}/release/hopbench" run http-tunnel "$@"
