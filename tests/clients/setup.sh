#!/usr/bin/env bash
# Brings the clients that tests hold the node against, below target/clients: the Python SDK and schemathesis in a
# virtual environment, and promtool out of Debian's package (not installed: that would start a server).
# Does nothing if they are there.
#
#   tests/clients/setup.sh            all of them
#   tests/clients/setup.sh python     the virtual environment
#   tests/clients/setup.sh promtool   promtool
set -euo pipefail
cd "$(dirname "$0")/../.."

home=target/clients
wanted=tests/clients/requirements.txt
mkdir -p "$home"
# Tests ask for it, several at a time.
exec 9>"$home/lock"
flock 9

python() {
    cmp -s "$wanted" "$home/installed.txt" && return
    rm -rf "$home/venv"
    python3 -m venv "$home/venv" || { echo "please install: python3-venv" >&2; exit 69; }
    local pip=("$home/venv/bin/pip" install --quiet --disable-pip-version-check)
    "${pip[@]}" -r "$wanted"
    # The SDK names the tools of its authors among what it needs, and no Python above 3.11. It uses none of them.
    "${pip[@]}" --no-deps --ignore-requires-python bacalhau-sdk==1.4.2 bacalhau-apiclient==1.4.1
    cp "$wanted" "$home/installed.txt"
}

promtool() {
    [ ! -x "$home/promtool" ] || return 0
    local files as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    files=$(mktemp -d "$home/promtool.XXXXXX")
    # Without lists of packages there is nothing to choose from.
    (cd "$files" && { apt-get download -qq prometheus 2>/dev/null \
        || { "${as_root[@]}" apt-get update -qq && apt-get download -qq prometheus; }; }) \
        || { echo "cannot get Debian's package prometheus" >&2; exit 69; }
    dpkg-deb --fsys-tarfile "$files"/*.deb | tar -x -C "$files" ./usr/bin/promtool
    mv "$files/usr/bin/promtool" "$home/promtool"
    rm -rf "$files"
}

for part in "${@:-python promtool}"; do
    for each in $part; do "$each"; done
done
