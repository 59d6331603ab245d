#!/bin/sh
# A judge's server under faults, at full size: 10,000 answers for a guard and for Perspective (1,000 for each of the
# other guards), 30 % of the requests fail in every way that a server can, then kill -9 and resume; 10,000 fuzzed
# replies for each grammar; a planted key. Prints what benchmarks/results/judges.md keeps.
#
#     sh benchmarks/judges.sh > benchmarks/results/judges.md
cd "$(dirname "$0")/.." || exit 1
: "${PYTHON:=.venv/bin/python}"
echo "# Judges' servers under faults"
echo
echo "$(date -u +%F), $(uname -m), $(getconf _NPROCESSORS_ONLN) cores: \`sh benchmarks/judges.sh\`"
echo
echo '```text'
LAYERALIGN_REPLIES=10000 LAYERALIGN_FUZZ=10000 "$PYTHON" -m pytest tests/test_guards.py tests/test_guard_kinds.py \
  tests/test_perspective.py tests/test_every_judge.py -vv -p no:warnings --durations=4 -k "faults or fuzzed or killed or planted or down" 2>&1 |
  grep -E "PASSED|FAILED|passed|failed|s call" | sed 's/ *\[ *[0-9]*%\]//'
echo '```'
