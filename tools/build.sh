#!/usr/bin/env bash
# Configures and builds one preset of CMakePresets.json (release when not named).
#   tools/build.sh [preset] [cmake --build arguments...]

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

preset=${1:-release}
shift || true
cd "$lacuna_root"
for tool in cmake ninja; do
  command -v "$tool" >/dev/null || die "$tool is missing; run 'make setup' first"
done
if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_NOHASHDIR=1 # tools/check_torch.sh compiles the same files in a folder of its own
fi

log=build/$preset.log
mkdir -p build
: >"$log"
say "building ($preset)"
# FindLlama takes it from here also when ninja runs CMake again by itself.
llama=(-ULLAMA_DIR)
[[ -z ${LLAMA_DIR:-} ]] || llama=("-DLLAMA_DIR=$LLAMA_DIR")
logged "$log" cmake --preset "$preset" "${llama[@]}"
cmake --build --preset "$preset" "$@" 2>&1 | tee -a "$log" | progress "$preset" ||
  { grep -E -A 4 'error|FAILED' "$log" | head -n 60 >&2; die "the build failed; the whole log: $log"; }
if grep -q 'warning:' "$log"; then
  say "  $(grep -c 'warning:' "$log") warnings, see $log"
fi
say "built ($preset) in $(took)"
