#!/usr/bin/env bash
# Counts instructions, with valgrind's callgrind: figures that do not depend on the machine or on what else it does.
#
# ./benches/instructions.sh [PROGRAM]   PROGRAM: codling as released; built if none is named
#
# Packing: 64 MiB in eight files, the same bytes everywhere (log lines, noise, zeros), default level, one thread.
# A no-op job: submitted, run, packed and published, with a module that was compiled before; the mean of twenty.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need valgrind valgrind
need curl curl
need python3 python3
program=${1:-}
if [ -z "$program" ]; then
    cargo build --locked --release --bin codling
    program=${CARGO_TARGET_DIR:-target}/release/codling
fi
pack=$(cargo bench --locked --bench pack --no-run --message-format json 2>/dev/null |
    grep -o '"executable":"[^"]*/pack-[^"]*"' | cut -d'"' -f4 | tail -n 1)
[ -x "$pack" ] || die 70 "the packing bench was not built: cargo bench --bench pack --no-run"
dir=$(mktemp -d)
node=
cleanup() {
    [ -z "$node" ] || kill "$node" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap cleanup EXIT

python3 - "$dir/corpus" <<'PYTHON'
import os, random, sys
os.mkdir(sys.argv[1])
dice = random.Random(1)
size = 8 << 20
for n in range(8):
    with open(f"{sys.argv[1]}/{n}", "wb") as out:
        if n < 5:
            while out.tell() < size:
                at, value = out.tell(), dice.gauss(20, 5)
                out.write(f"2026-01-01T00:00:{at % 60:02} sensor-{dice.randrange(40)} temperature={value:.2f} ok\n".encode())
            out.truncate(size)
        elif n < 7:
            out.write(dice.randbytes(size))
        else:
            out.truncate(size)
PYTHON

# Thousands, of what callgrind says it collected.
collected() { sed -n 's/^.*Collected : \([0-9]*\)$/\1/p' "$1"; }

valgrind --tool=callgrind --callgrind-out-file=/dev/null "$pack" --pack "$dir/corpus" 1 2>"$dir/pack.log" >&2 ||
    { cat "$dir/pack.log" >&2; die 70 "packing failed"; }
count=$(collected "$dir/pack.log")
printf 'packing 64 MiB: %d million instructions, %d for each byte\n' $((count / 1000000)) $((count >> 26))

cat >"$dir/job.json" <<'JSON'
{"Job":{"Type":"batch","Count":1,"Tasks":[{"Name":"main","Publisher":{"Type":"local"},"Engine":{"Type":"wasm","Params":{
"Entrypoint":"_start","EntryModule":{"Source":{"Type":"inline","Params":{"URL":
"data:application/wasm;base64,AGFzbQEAAAABBAFgAAADAgEABQMBAAEHEwIGbWVtb3J5AgAGX3N0YXJ0AAAKBAECAAs="}}}}}}]}}
JSON
# wait_log TEXT TIMES
wait_log() {
    local tries=0
    while [ "$(grep -c "$1" "$dir/node.log")" -lt "$2" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || { cat "$dir/node.log" >&2; die 70 "no '$1' in the node's log"; }
        sleep 0.1
    done
}
valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=/dev/null "$program" serve --data-dir "$dir/data" \
    --api-port 0 -c Publishers.Types.Local.Port=0 2>"$dir/node.log" >&2 &
node=$!
wait_log 'ready: API on' 1
api=$(sed -n 's/^.*ready: API on \([^,]*\),.*$/\1/p' "$dir/node.log")
submit() { curl -sSf -o /dev/null -X PUT --data-binary "@$dir/job.json" "$api/api/v1/orchestrator/jobs"; }
warm=2 jobs=20
for n in $(seq $((warm + jobs))); do
    [ "$n" -ne $((warm + 1)) ] || callgrind_control -i on "$node" >/dev/null 2>&1
    submit
    wait_log ': completed' "$n"
done
callgrind_control -i off "$node" >/dev/null 2>&1
kill "$node"
wait "$node" || die 70 "the node ended badly; see its log: $(tail -n 3 "$dir/node.log")"
node=
count=$(collected "$dir/node.log")
printf 'a no-op job: %d thousand instructions\n' $((count / jobs / 1000))
