#!/usr/bin/env bash
# Everything that is tested with boards' own tools (cross compilers, qemu, packages, update tools), one after the other:
# tests/boards/run.sh [SUITE...]. Later suites take what earlier ones have built. Not of itself: cross (see there).
set -euo pipefail
cd "$(dirname "$0")/../.."
suites=(targets deb cloud ota guest power)
[ $# -eq 0 ] || suites=("$@")
for suite in "${suites[@]}"; do
    printf '\n== boards: %s\n' "$suite"
    started=$SECONDS
    "./tests/boards/$suite.sh"
    printf 'boards: %s passed in %d s\n' "$suite" "$((SECONDS - started))"
    case $suite in
        targets) export CODLING_ARM64=$PWD/target/dist/aarch64-unknown-linux-gnu/codling ;;
        deb) CODLING_DEB=$(find "$PWD/target/boards-deb" -maxdepth 1 -name "codling_*_arm64.deb" ! -name '*+next*' ! -name 'codling_0.0.1_*') && export CODLING_DEB ;;
    esac
done
