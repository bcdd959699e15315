#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each for some seconds: bytes from anywhere into what reads
# specs, options, profiles, plans and task files, under AddressSanitizer and UndefinedBehaviorSanitizer.
#   tools/fuzz.sh [SECONDS] [TARGET...]     60, all of them
# Ends with one line per target and "N passed, N failed". What was found lies in build/fuzz/found/; give
# it to the program again to see it: build/fuzz/lacuna-fuzz-TARGET FILE. Inputs that reached new code are kept in
# build/fuzz/corpus/TARGET/ for the next run; a good few of them belong into test/fuzz/corpus/.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

seconds=${1:-60}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "got '$seconds', need a number of seconds; usage: tools/fuzz.sh [SECONDS] [TARGET...]"
shift || true
known=()
for source in test/fuzz/*_fuzz.cpp; do
  name=${source##*/}
  known+=("${name%_fuzz.cpp}")
done
targets=("$@")
((${#targets[@]})) || targets=("${known[@]}")
for name in "${targets[@]}"; do
  [[ -f test/fuzz/${name}_fuzz.cpp ]] || die "unknown target '$name'; there are ${known[*]}"
done

command -v clang++ >/dev/null || die "no clang++, whose libFuzzer this needs; run 'tools/setup.sh --dev'"
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$probe/x.cpp"
clang++ -fsanitize=fuzzer,address "$probe/x.cpp" -o "$probe/x" 2>"$probe/log" ||
  { cat "$probe/log" >&2; die "clang++ links no libFuzzer; run 'tools/setup.sh --dev'"; }

tools/build.sh fuzz --target lacuna-fuzzers

found=build/fuzz/found
mkdir -p "$found"
passed=0 failed=0
for name in "${targets[@]}"; do
  start=$SECONDS log=build/fuzz/$name.txt keep=build/fuzz/corpus/$name dict=()
  mkdir -p "$keep"
  [[ ! -f test/fuzz/corpus/$name.dict ]] || dict=("-dict=test/fuzz/corpus/$name.dict")
  if UBSAN_OPTIONS=print_stacktrace=1 "build/fuzz/lacuna-fuzz-$name" -max_total_time="$seconds" -max_len=4096 -timeout=20 \
    -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix="$found/$name-" "${dict[@]}" "$keep" "test/fuzz/corpus/$name" \
    >"$log" 2>&1; then
    passed=$((passed + 1))
    result=ok note=''
  else
    failed=$((failed + 1))
    result=FAIL note=", see $log"
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  reach=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
  printf '  %-4s  %-10s %9s runs  %s  %12s%s\n' "$result" "$name" "${runs:-?}" "${reach:-cov: ?}" "$(took "$start")" "$note"
  [[ $result = ok ]] || grep -E 'ERROR|runtime error|Test unit written|^[^#=].*(lets pass|refuses|off by|taken|times in the runs)' "$log" |
    head -n 8 | sed 's/^/        /'
done
echo "$passed passed, $failed failed"
((failed == 0))
