#!/usr/bin/env bash
# The long run of the tests, for a night: kernels over full products where 'make check' takes pairs, and
# laws and kernels with other random numbers.
#   tools/check_full.sh [SEED...]     (1 2 3 4)
# Ends with "N passed, N failed", counting one run of all tests per seed.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

seeds=("$@")
((${#seeds[@]})) || seeds=(1 2 3 4)
tools/build.sh release
mkdir -p build/check
passed=0 failed=0

# once NAME VARIABLE=VALUE... : all tests of the two programs under these variables.
once() {
  local name=$1 start=$SECONDS log=build/check/full_${1// /_}.txt
  shift
  if (cd build/release && env "$@" ./lacuna-tests --gtest_brief=1 && env "$@" ./lacuna-skeleton-tests --gtest_brief=1) >"$log" 2>&1; then
    passed=$((passed + 1))
    printf '  ok    %-24s %12s\n' "$name" "$(took "$start")"
  else
    failed=$((failed + 1))
    printf '  FAIL  %-24s %12s  see %s\n' "$name" "$(took "$start")" "$log"
    grep -E -A 6 'Failure|again:' "$log" | head -n 30 | sed 's/^/        /'
  fi
}

for seed in "${seeds[@]}"; do once "seed $seed" LACUNA_SEED="$seed"; done
once 'full product' LACUNA_FULL=1
echo "$passed passed, $failed failed"
((failed == 0))
