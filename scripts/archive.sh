#!/usr/bin/env bash
# Packs the built programs: scripts/archive.sh NAME makes target/archives/NAME.tar.gz and its
# SHA-256. Every program of the release build is in it, and what a user needs to begin with.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name="${1:?expected a name}"
programs=(
    hopbench hopbench-load http_baseline http-tunnel-host http-tunnel-plugin forwarder replay-proxy
    edge-node
)
directory="target/archives/$name"
rm -rf "$directory"
mkdir -p "$directory"
for program in "${programs[@]}"; do
    if [[ ! -x target/release/$program ]]; then
        echo "error: 'target/release/$program' is not built; run 'cargo build --release'" >&2
        exit 4
    fi
    cp "target/release/$program" "$directory/"
done
cp README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$directory/"
tar -C target/archives --owner=0 --group=0 --sort=name -czf "target/archives/$name.tar.gz" "$name"
(cd target/archives && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
rm -rf "$directory"
echo "target/archives/$name.tar.gz"
