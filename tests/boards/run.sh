#!/usr/bin/env bash
# Everything that is tested with boards' own tools (cross compilers, qemu, packages, update tools), one after the other.
set -euo pipefail
cd "$(dirname "$0")/../.."
for suite in targets deb ota guest power; do
    [ -x "tests/boards/$suite.sh" ] || continue
    printf '\n== boards: %s\n' "$suite"
    "./tests/boards/$suite.sh"
done
