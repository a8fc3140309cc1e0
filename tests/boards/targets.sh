#!/usr/bin/env bash
# Builds the program for every board's target, prints sizes, and runs it in an emulator of the board's processor:
# `--version` and `codling demo` on each, the front-door tests on aarch64 and ARMv7, and one data directory that moves
# from processor to processor. Prints in numbers what ran where.
#
# ./tests/boards/targets.sh [build] [run] [tests] [moves]   these parts only
#
#   CODLING_TARGETS   these targets instead of all; TARGET:lean is its lean program alone
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh

parts=${*:-build run tests moves}
for each in $parts; do
    case $each in build | run | tests | moves) ;; *) die 64 "unknown part '$each': build, run, tests or moves; CODLING_TARGETS names targets" ;; esac
done
part() { [[ " $parts " == *" $1 "* ]]; }
work=$PWD/target/boards/targets
mkdir -p "$work"

need qemu-aarch64-static qemu-user-static
# Only what runs the programs that are not static; nothing is compiled with it.
[ -e /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1 ] || as_root apt-get install -qy --no-install-recommends libc6-arm64-cross
[ -e /usr/arm-linux-gnueabihf/lib/ld-linux-armhf.so.3 ] || as_root apt-get install -qy --no-install-recommends libc6-armhf-cross
need unshare util-linux

# Target, emulator, processor of the least board, where its libc lies.
boards='
    aarch64-unknown-linux-gnu     qemu-aarch64-static cortex-a53 /usr/aarch64-linux-gnu
    aarch64-unknown-linux-musl    qemu-aarch64-static cortex-a53 /
    armv7-unknown-linux-gnueabihf qemu-arm-static     cortex-a7  /usr/arm-linux-gnueabihf
    arm-unknown-linux-musleabihf  qemu-arm-static     arm1176    /
'
# Target, kind, the most bytes that it may have: what is flashed and sent over bad links.
sizes='
    aarch64-unknown-linux-gnu     full 10000000
    aarch64-unknown-linux-gnu     lean  4000000
    aarch64-unknown-linux-musl    full 10000000
    aarch64-unknown-linux-musl    lean  4000000
    armv7-unknown-linux-gnueabihf full  5000000
    arm-unknown-linux-musleabihf  full  5000000
    x86_64-unknown-linux-gnu      full 10000000
'

# Of a table's rows those that are wanted.
wanted() {
    while read -r target rest; do
        case " ${CODLING_TARGETS:-$target} " in
            *" $target "* | *" $target:${rest%% *} "*) [ -z "$target" ] || echo "$target $rest" ;;
        esac
    done
}
known=$boards
boards=$(wanted <<<"$boards")
sizes=$(wanted <<<"$sizes")
[ -n "$sizes" ] || die 64 "CODLING_TARGETS names none of the targets: $CODLING_TARGETS"

built() { if [ "$2" = lean ]; then echo "target/dist/$1/lean/codling"; else echo "target/dist/$1/codling"; fi; }

# A script that runs a target's program in its emulator, and is the program for the tests.
emulated() {
    local target=$1 emulator=$2 cpu=$3 libc=$4 file=$work/$1
    printf '#!/bin/sh\nexec %s -cpu %s -L %s %s "$@"\n' "$emulator" "$cpu" "$libc" "$PWD/$(built "$target" full)" >"$file"
    chmod +x "$file"
    echo "$file"
}

# `codling demo` starts its node by itself, so the kernel must know how to run such a program: in a namespace of its own.
demo() {
    local target=$1 emulator=$2 cpu=$3 libc=$4 dir=$work/demo-$1
    rm -rf "$dir"
    QEMU_CPU=$cpu QEMU_LD_PREFIX=$libc unshare --user --map-root-user --mount bash -euc '
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        name=$1; name=${name%-static}
        IFS=: read -r _ name kind offset magic mask _ </usr/lib/binfmt.d/$name.conf
        printf %s ":$name:$kind:$offset:$magic:$mask:$(command -v "$1"):F" >/proc/sys/fs/binfmt_misc/register
        "$2" demo --dir "$3" >"$3.log" 2>&1 || { cat "$3.log"; exit 1; }
    ' - "$emulator" "$PWD/$(built "$target" full)" "$dir"
    [ -s "$dir/result/outputs/summary.csv" ] || die 1 "$target: the demo left no result"
}

if part build; then
    # What builds need, before two of them could want to install it at the same time.
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf libc6-dev-armhf-cross
    (
        . scripts/toolchain.sh
        case $sizes in *musl*) use_zig ;; esac
        while read -r target kind most; do
            [ -z "$target" ] || rustup_has "$target" || use_debian_rust
        done <<<"$sizes"
    )
    say "building every target, two at a time"
    # The two kinds of one target share a directory: one after the other, in one line.
    sed -n 's/^ *\([a-z0-9_-]*linux[a-z0-9_-]*\) *\(full\|lean\).*/\1 \2/p' <<<"$sizes" | sort | awk '
        { kinds[$1] = kinds[$1] " " $2 } END { for (target in kinds) print target kinds[target] }' |
        xargs -P 2 -L 1 bash -euc 'target=$0
            for kind in "$@"; do
                log=target/boards/targets/$target-$kind.build
                [ "$kind" = full ] && kind=
                scripts/build.sh "$target" $kind >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 255; }
                tail -n 1 "$log"
            done'
fi

say "sizes"
bad=0
while read -r target kind most; do
    [ -n "$target" ] || continue
    bytes=$(stat -c %s "$(built "$target" "$kind")")
    printf '%-30s %-5s %8d bytes of %8d\n' "$target" "$kind" "$bytes" "$most"
    if [ "$bytes" -gt "$most" ]; then echo "    too large"; bad=1; fi
done <<<"$sizes"

if part run; then
    say "every target in an emulator of its least processor"
    while read -r target emulator cpu libc; do
        [ -n "$target" ] || continue
        file=$(emulated "$target" "$emulator" "$cpu" "$libc")
        version=$("$file" --version)
        demo "$target" "$emulator" "$cpu" "$libc"
        printf '%-30s %-10s %s; demo: a WASM job run, its result fetched\n' "$target" "$cpu" "$version"
    done <<<"$boards"
    # Without WASM there is no demo.
    while read -r target emulator cpu libc; do
        [[ $'\n'$sizes == *$'\n'"$target lean "* ]] || continue
        version=$("$emulator" -cpu "$cpu" -L "$libc" "$(built "$target" lean)" --version)
        printf '%-30s %-10s %s, lean\n' "$target" "$cpu" "$version"
    done <<<"$known"
fi

# Tests that hold more than the program, and so say nothing about another processor. Name and reason, each.
left_out='
    demo::                                        starts its node by itself; it ran above, where the kernel knows how to
    doctor::the_clock_is_the_kernels_word         preloads libfaketime, which is for this machine
    lifecycle::a_board_that_starts_in_1970        preloads libfaketime, which is for this machine
    lifecycle::a_clock_that_jumps_by_years        preloads libfaketime, which is for this machine
    power::kills_at_random_moments                kills within 0.6 s of a start, when an emulated node has not begun
    serving::a_crowd_behind_one_address           measures memory, to which an emulator adds its own
    logs::a_hundred_follow_one_log                measures memory, to which an emulator adds its own
    update::                                      installs the program and starts it by itself, like the demo
    logs::the_command_line_shows_logs_and_follows  Ctrl-C does not end a program that waits in the emulator
    service::the_system_call_filter_lets_the_node  strace sees the system calls of the emulator
'

if part tests; then
    say "front-door tests: the tests run on this machine, the program under test in an emulator"
    cargo test --locked --quiet --features interpreter --test front_door --no-run
    harness=$(cargo test --locked --features interpreter --test front_door --no-run --message-format json 2>/dev/null |
        grep -o '"executable":"[^"]*front_door[^"]*"' | cut -d'"' -f4 | tail -n 1)
    all=$("$harness" --list --format terse | grep -c ': test$')
    skip=()
    while read -r name reason; do [ -z "$name" ] || skip+=(--skip "$name"); done <<<"$left_out"
    while read -r target emulator cpu libc; do
        case $target in aarch64-unknown-linux-gnu | armv7-*) ;; *) continue ;; esac
        CODLING_UNDER_TEST=$(emulated "$target" "$emulator" "$cpu" "$libc")
        export CODLING_UNDER_TEST CODLING_PATIENCE=600
        started=$SECONDS
        "$harness" "${skip[@]}" >"$work/$target.tests" 2>&1 || bad=1
        ran=$(grep -cE '^test .* \.\.\. (ok|FAILED)$' "$work/$target.tests" || true)
        passed=$(grep -cE '^test .* \.\.\. ok$' "$work/$target.tests" || true)
        printf '%s: %d of %d ran, %d passed, %d left out, %d s\n' \
            "$target" "$ran" "$all" "$passed" "$((all - ran))" "$((SECONDS - started))"
        [ "$ran" = "$passed" ] || sed -n '/^failures:/,$p' "$work/$target.tests"
        [ "$passed" -gt 0 ] || { tail -n 20 "$work/$target.tests"; bad=1; }
    done <<<"$boards"
    unset CODLING_UNDER_TEST CODLING_PATIENCE
    echo "left out on both:"
    sed '/^ *$/d' <<<"$left_out"
fi

if part moves; then
    say "a data directory moves from processor to processor, killed each time with work in hand"
    programs=
    while read -r target emulator cpu libc; do
        [ -z "$target" ] || programs+=$(emulated "$target" "$emulator" "$cpu" "$libc"):
    done <<<"$boards"
    # This machine's own program is the tests'.
    cargo build --locked --quiet --features interpreter
    CODLING_PATIENCE=600 CODLING_MOVES=$programs$PWD/target/debug/codling \
        cargo test --locked --quiet --features interpreter --test front_door -- --nocapture moves:: || bad=1
fi
exit "$bad"
