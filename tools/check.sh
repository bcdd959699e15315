#!/usr/bin/env bash
# Runs every check, one line each, and ends with "N passed, N failed", counting single tests. What is
# skipped counts as neither; a line before the last says how much that is.
#   tools/check.sh [--fast]     --fast: without the sanitizer builds
# The output of each step lies in build/check/.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
set +e # a failing step is counted, not fatal
cd "$lacuna_root" || exit 1

fast=no
case ${1:-} in
  --fast) fast=yes ;;
  '') ;;
  *) die "unknown argument '$1'; usage: tools/check.sh [--fast]" ;;
esac

logs=build/check
mkdir -p "$logs"
passed=0 failed=0 skipped_tests=0

# line RESULT NAME START [NOTE]
line() { printf '  %-4s  %-38s %12s  %s\n' "$1" "$2" "$(took "$3")" "${4:-}"; }

# step NAME command...: one check, counted as one test.
step() {
  local name=$1 start=$SECONDS log=$logs/${1//[^a-z0-9]/_}.txt
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    line ok "$name" "$start" "$(tail -n 1 "$log" | cut -c 1-60)"
  else
    failed=$((failed + 1))
    line FAIL "$name" "$start" "see $log"
    tail -n 25 "$log" | sed 's/^/        /'
  fi
}

# note NAME TEXT: says something that is no check.
note() { printf '  %-4s  %-38s %12s  %s\n' note "$1" '' "$2"; }

# tests PRESET [NAME=VALUE...]: builds a preset and runs its tests, each counted; the build itself
# counts only when it fails (and then what needs that build is left out).
tests() {
  local preset=$1 start=$SECONDS log=$logs/$1.txt junit=$PWD/$logs/$1.xml suite total bad skipped
  shift
  # ThreadSanitizer of GCC 12 does not start where the kernel randomises addresses widely.
  local fixed=()
  if [[ $preset = tsan ]] && setarch "$(uname -m)" -R true 2>/dev/null; then
    fixed=(setarch "$(uname -m)" -R)
  fi
  # ThreadSanitizer is slow and looks at threads: only the tests that have several, and without the command line.
  local targets=() only=()
  if [[ $preset = tsan ]]; then
    targets=(--target lacuna-tests lacuna-c-test)
    only=(-R '^(ThreadPool|Session|CApi)|_(repeat|order)$|AttendKernel\.(Masks|LargeLogits)')
  fi
  if ! "${fixed[@]}" tools/build.sh "$preset" "${targets[@]}" >"$log" 2>&1; then
    failed=$((failed + 1))
    line FAIL "build ($preset)" "$start" "see $log"
    tail -n 25 "$log" | sed 's/^/        /'
    return 1
  fi
  line ok "build ($preset)" "$start"

  start=$SECONDS
  rm -f "$junit"
  env "$@" "${fixed[@]}" ctest --test-dir "build/$preset" --no-tests=error --output-on-failure "${only[@]}" \
    --parallel "$(nproc)" --timeout 600 --output-junit "$junit" >"$log" 2>&1
  # <testsuite ... tests="12" failures="0" disabled="0" skipped="1" ...>, one attribute per line or not
  suite=$(tr '\n' ' ' 2>/dev/null <"$junit" | grep -o '<testsuite [^>]*>')
  attribute() { local n=${suite#*[[:space:]]"$1"=\"} && n=${n%%\"*} && [[ $n =~ ^[0-9]+$ ]] && echo "$n" || echo 0; }
  total=$(attribute tests) bad=$(attribute failures)
  skipped=$(($(attribute skipped) + $(attribute disabled)))
  if ((total == 0)); then # no report: ctest itself could not run
    failed=$((failed + 1))
    line FAIL "tests ($preset)" "$start" "no tests ran, see $log"
    return 0
  fi
  skipped_tests=$((skipped_tests + skipped))
  passed=$((passed + total - bad - skipped))
  failed=$((failed + bad))
  if ((bad)); then
    line FAIL "tests ($preset)" "$start" "$bad of $total failed, see $log"
    sed -n '/The following tests FAILED/,/^Errors/p' "$log" | head -n 40 | sed 's/^/        /'
    echo "        again: ctest --test-dir build/$preset --rerun-failed --output-on-failure"
  else
    line ok "tests ($preset)" "$start" "$total tests$( ((skipped)) && echo ", $skipped skipped")"
  fi
  return 0
}

# Cheap ones first: they read the tree only.
step 'layers: the check can fail'       python3 tools/check_layers.py --self-test
step 'layers'                           python3 tools/check_layers.py
step 'words and sizes: check can fail'  python3 tools/check_words.py --self-test
step 'words and sizes'                  python3 tools/check_words.py
note 'lines of code'                    "$(python3 tools/check_words.py --columns | tail -n 1)"
step 'every header stands alone'        python3 tools/check_headers.py
step 'llama.cpp: the choice can fail'   tools/get_llama.sh --self-test

step 'weak symbols: the check can fail' python3 tools/check_weak_symbols.py --self-test

if tests release; then
  step 'weak symbols'                   python3 tools/check_weak_symbols.py build/release
  step 'generated docs are fresh'       build/release/lacuna docs --check
fi

if command -v nvcc >/dev/null; then
  step 'CUDA kernels compile'           tools/build.sh cuda-some --target lacuna-cuda-test lacuna-cuda-bench
else
  note 'CUDA kernels compile'           'skipped: no nvcc'
fi

if [[ $fast = no ]]; then
  # Without detect_stack_use_after_return: g++ 12 puts 64-byte vectors on its heap frames unaligned, and they fault.
  tests dev  UBSAN_OPTIONS=print_stacktrace=1
  tests tsan TSAN_OPTIONS=halt_on_error=1
fi

((skipped_tests == 0)) || note 'skipped tests' "$skipped_tests in all, counted neither as passed nor as failed"
echo "  all of it took $(took)"
echo "$passed passed, $failed failed"
((failed == 0))
