#!/bin/sh
# SWUpdate runs this after it has written the signed tar to @BUNDLE@.
set -eu

[ "${1:-}" = postinst ] || exit 0
bundle=@BUNDLE@
trap 'rm -f "$bundle"' EXIT
"${CODLING_OTA:-/usr/lib/codling/codling-ota}" apply "$bundle"
