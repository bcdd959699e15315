#!/usr/bin/env bash
# Compiles the CUDA kernels, compares them with the reference on this machine's GPU, as PyTorch calls them too, times them, and
# keeps the results.
#   tools/gpu_check.sh [--run-only] [--tests-only] [--time prefill|grad|decode|choose] [FOLDER]
#
# FOLDER (bench/results/<card>) gets  check.txt     what the tests say, compute-sanitizer's word on a few of them too
#                                     check-torch.txt  what the tests of the Python package say, where python3 has a PyTorch for CUDA
#                                     prefill.json  what lacuna-cuda-bench measured, PyTorch's peers beside it
#                                     prefill.txt   the same as a table
#                                     grad.json, grad.txt      of the backward
#                                     decode.json, decode.txt  of decode
#                                     choose.json, choose.txt  of the choice of blocks, and of all of it with attention
# --run-only takes the programs in build/cuda as they are, for a machine with a GPU but no compiler. PyTorch is asked
# where python3 has one. --time: only these figures, the others stay as they are.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

build=yes bench=yes figures=all
while [[ ${1:-} = --* ]]; do
  case $1 in
    --run-only) build=no ;;
    --tests-only) bench=no ;;
    --time)
      shift
      figures=${1:-}
      [[ $figures =~ ^(prefill|grad|decode|choose)$ ]] || die "--time takes prefill, grad, decode or choose, not '$figures'"
      ;;
    *) die "unknown argument '$1'; usage: tools/gpu_check.sh [--run-only] [--tests-only] [--time prefill|grad|decode|choose] [FOLDER]" ;;
  esac
  shift
done
(($# <= 1)) || die "usage: tools/gpu_check.sh [--run-only] [--tests-only] [--time prefill|grad|decode|choose] [FOLDER]"

command -v nvidia-smi >/dev/null || die "no nvidia-smi: this machine has no NVIDIA GPU, or no driver"
card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
[[ -n $card ]] || die "nvidia-smi sees no GPU"
name=$(tr '[:upper:]' '[:lower:]' <<<"${card%%,*}" | tr -cs 'a-z0-9' '-')
folder=${1:-bench/results/${name%-}}

test=build/cuda/lacuna-cuda-test timing=build/cuda/lacuna-cuda-bench
if [[ $build = yes ]]; then tools/build.sh cuda --target lacuna-cuda-test lacuna-cuda-bench; fi
[[ -x $test && -x $timing ]] || die "$test or $timing is missing; run without --run-only"
mkdir -p "$folder"

# What a program prints goes to the screen and, under a head, to a file.
keep() {
  local file=$1
  shift
  "$@" 2>&1 | tee -a "$file"
}
head_of() { printf 'tools/gpu_check.sh\ncard, driver: %s\n' "$card" >"$1"; }

status=0
head_of "$folder/check.txt"
keep "$folder/check.txt" "$test" || status=1
grep -q SKIPPED "$folder/check.txt" && status=1 # a test that found no GPU has proved nothing
few=*.NanSpreadsToItsRows:*.NanStaysOutOfMass:*.GraphsReplayIt:*.NothingToDo:*.ListsAreChecked:CudaGrad.InverseOfLists:CudaGrad.WritesWhatIsAskedFor
few=$few:CudaSpargeAttn.BlocksThatAreNotAlikeAreKept:CudaMInference.SeesPlantedLines
# racecheck does not follow a warp's barrier to the arrival of one of its lanes, and finds races that are none.
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck synccheck; do
    echo "compute-sanitizer --tool $tool" >>"$folder/check.txt"
    keep "$folder/check.txt" compute-sanitizer --tool $tool --error-exitcode 1 "$test" --gtest_filter="$few" |
      grep SUMMARY || status=1
  done
fi
((status == 0)) || die "the check failed; its output is in $folder/check.txt"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  how=()
  [[ $build = yes ]] || how=(--run-only)
  head_of "$folder/check-torch.txt"
  keep "$folder/check-torch.txt" tools/check_torch_cuda.sh "${how[@]}" || die "PyTorch's tests failed; their output is in $folder/check-torch.txt"
else
  say "python3 has no PyTorch that sees the GPU: its tests were not run"
fi
[[ $bench = yes ]] || exit 0

# Lacuna's figures and, where python3 has PyTorch, those of its peers: measured NAME PEERS [ARGUMENT]
measured() {
  [[ $figures = all || $figures = "$1" ]] || return 0
  local to=$folder/$1
  head_of "$to.txt"
  keep "$to.txt" "$timing" "$1" "$to.json"
  if python3 -c 'import torch' 2>/dev/null; then
    keep "$to.txt" python3 "bench/peers/$2" "${@:3}" "$to.json" "$to.json"
  else
    say "no PyTorch in python3: no peers beside Lacuna's figures"
  fi
}
measured prefill gpu_attention.py
measured grad gpu_attention.py --grad
measured decode gpu_decode.py
measured choose gpu_choose.py
say "results in $folder"
