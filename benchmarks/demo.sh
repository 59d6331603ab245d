#!/usr/bin/env bash
# `make demo` as a newcomer runs it: in a fresh clone, with nothing installed. Needs GNU time (Debian: time).
#   bash benchmarks/demo.sh
set -euo pipefail
here=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT
git clone --quiet "$here" "$there/layeralign"
cd "$there/layeralign"
echo "$(date -u +%F), $(uname -m), $(nproc) cores, commit $(git rev-parse --short HEAD)"
start=$(date +%s.%N)
make .venv/ready >/dev/null
echo "set-up: $(echo "$(date +%s.%N) - $start" | bc) s"
command time --format 'make demo: %e s, %U s user, peak memory %M KiB' make demo
