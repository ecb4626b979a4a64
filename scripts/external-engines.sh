#!/usr/bin/env bash
# Installs what the tests of 'hopbench export' need into target/external-engines, unless it is there:
# Locust from PyPI, in a virtual environment, and k6's types with a type checker from npm.
set -euo pipefail
case " $* " in *" -h "* | *" --help "*)
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=(locust==2.47.0)
node=(@types/k6@2.3.0 typescript@7.0.2)

directory="${CARGO_TARGET_DIR:-target}/external-engines"
versions="${python[*]} ${node[*]}"
[[ "$(cat "$directory/installed" 2>/dev/null)" != "$versions" ]] || exit 0

rm -rf "$directory"
mkdir -p "$directory"
log="$directory/log"
{
    python3 -m venv "$directory/venv" &&
        "$directory/venv/bin/pip" install --quiet --disable-pip-version-check "${python[@]}" &&
        npm install --silent --no-fund --no-audit --prefix "$directory" "${node[@]}"
} >"$log" 2>&1 || {
    tail -n 5 "$log" >&2
    echo "could not install ${versions}" >&2
    exit 1
}
echo "$versions" >"$directory/installed"
