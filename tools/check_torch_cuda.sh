#!/usr/bin/env bash
# Builds the Python package with its CUDA kernels and runs those of its tests that know of devices; on a machine with a GPU that
# shows the kernels right as PyTorch calls them. tools/gpu_check.sh runs it.
#   tools/check_torch_cuda.sh [--build-only | --run-only] [pytest arguments...]
#
# --build-only needs nvcc and a PyTorch, also one for CPUs: python3's, else that of .venv (tools/check_torch.sh makes it). The
# package is left in build/torch-cuda/site. --run-only takes it from there; its python3 needs a PyTorch for CUDA, and pytest.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

build=yes run=yes
case ${1:-} in
  --build-only) run=no && shift ;;
  --run-only) build=no && shift ;;
esac
site=build/torch-cuda/site

if [[ $build = yes ]]; then
  if ! python3 -c 'import torch' 2>/dev/null; then
    [[ -x .venv/bin/python ]] || die "python3 has no PyTorch, and there is no .venv; run tools/check_torch.sh first"
    export VIRTUAL_ENV=$PWD/.venv # CMake looks there first
  fi
  tools/build.sh torch-cuda --target lacuna-torch
  rm -rf "$site"
  logged build/torch-cuda.log cmake --install build/torch-cuda --prefix "$site" --strip
  cp src/host/torch/lacuna/* "$site/lacuna/" 2>/dev/null || true # folders are caches
fi
[[ $run = yes ]] || exit 0

[[ -f $site/lacuna/_lacuna_cuda.so ]] || die "$site has no package; run without --run-only"
python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' ||
  die "python3 has no PyTorch that sees a GPU: the tests would be skipped, and show nothing"
python3 -c 'import pytest' || die "python3 has no pytest: install it, or name a folder that has it in PYTHONPATH"
PYTHONPATH=$PWD/$site${PYTHONPATH:+:$PYTHONPATH} python3 -m pytest -q -p no:cacheprovider \
  test/torch/test_lists.py test/torch/test_devices.py test/torch/test_cuda.py "$@"
