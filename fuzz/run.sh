#!/usr/bin/env bash
# Fuzzes every target, or those named, with coverage as the guide, on the stable toolchain: what cargo-fuzz does, but
# without it. What is found stays in fuzz/target/found; a fault is left in fuzz/artifacts and ends the run.
#
#   fuzz/run.sh                        FUZZ_SECONDS (default 10) for each target
#   fuzz/run.sh head chunked           these targets only
#   FUZZ_MINIMISE=1 fuzz/run.sh head   afterwards, keeps of corpus and findings the least that covers as much
#
# Kept in corpus/: seed-* were written by hand, failed-* once made a target fail; both stay. The rest is the engine's.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-10}
if [ $# -gt 0 ]; then targets=("$@"); else targets=(corpus/*); targets=("${targets[@]#corpus/}"); fi

# With a target named, the flags are for what runs there and not for build scripts. Cargo.lock holds the versions of
# the lock file above; without --locked, a dependency that is new there is added here.
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
    --cfg fuzzing
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=8
)
RUSTFLAGS="${flags[*]}" cargo build --release --target "$host"

fuzz() {
    local target=$1 binary=target/$host/release/codling-fuzz log=target/$1.log least=target/least/$1
    export FUZZ_TARGET=$target
    mkdir -p target/found/"$target" artifacts
    # What is found goes to the first directory; what is kept is only read.
    if ! "$binary" target/found/"$target" corpus/"$target" -max_total_time="$seconds" -max_len=8192 -timeout=20 \
        -rss_limit_mb=1024 -malloc_limit_mb=256 -artifact_prefix="artifacts/$target-" -print_final_stats=1 \
        2>"$log"; then
        tail -40 "$log"
        echo "fuzz $target: found a fault, see fuzz/artifacts" >&2
        return 255
    fi
    echo "fuzz $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
    if [ -n "${FUZZ_MINIMISE:-}" ]; then
        rm -rf "$least"
        mkdir -p "$least"
        "$binary" -merge=1 -max_len=4096 "$least" corpus/"$target" target/found/"$target" 2>>"$log"
        find corpus/"$target" -type f ! -name 'seed-*' ! -name 'failed-*' -delete
        # As many of them as are worth cloning, of all sizes.
        local keep=${FUZZ_KEEP:-40} all
        all=$(find "$least" -type f | wc -l)
        ls -rS "$least" | awk -v n="$all" -v keep="$keep" 'int(NR * keep / n) > int((NR - 1) * keep / n)' \
            | xargs -I{} cp "$least"/{} corpus/"$target"/
    fi
}
export -f fuzz
export host seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz {}'
