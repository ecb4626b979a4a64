#!/usr/bin/env bash
# Writes the page of a release: what its reference runs and probes say, compared with those of the
# last tag, if there is one.
#
#     scripts/release-summary.sh v1.2.3 FILE
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:?expected a tag, such as v1.2.3}
file=${2:?expected a file to write}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

base=()
if last=$(git describe --tags --abbrev=0 --match 'v*' --exclude "$tag" 2>/dev/null); then
    git archive "$last" bench_results | tar -x -C "$scratch"
    while read -r directory; do
        base+=(--base "$directory")
    done < <(find "$scratch/bench_results" -mindepth 2 -maxdepth 2 -type d | sort)
fi
mkdir -p "$(dirname "$file")"
./target/release/hopbench release-summary --release "${tag#v}" --out "$file" "${base[@]}"
