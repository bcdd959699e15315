#!/usr/bin/env bash
# Builds the Python package as users get it, installs it into .venv beside a PyTorch for CPUs, and runs its tests from
# there. Ends with "N passed, N failed"; what is skipped counts as neither. The outputs lie in build/check/.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$lacuna_root"

wanted=(torch==2.13.0 transformers==5.24.0 scikit-build-core==1.1.2 pytest==9.2.0)

logs=build/check
mkdir -p "$logs"
venv=$(project_venv)
python=$venv/bin/python

has() { "$python" -c 'import importlib.metadata as m, sys
name, version = sys.argv[1].split("==")
sys.exit(m.version(name).split("+")[0] != version)' "$1" 2>/dev/null; }
missing=()
for package in "${wanted[@]}"; do has "$package" || missing+=("$package"); done
: >"$logs/pip.txt"
if ((${#missing[@]})); then
  say "installing ${missing[*]} into .venv"
  logged "$logs/pip.txt" "$python" -m pip install "${missing[@]}"
fi

# As tools/build.sh compiles, so that a compiler cache serves both.
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_NOHASHDIR=1
fi
export CC=cc CXX=c++ CMAKE_GENERATOR=Ninja
say "building the Python package"
start=$SECONDS
logged "$logs/pip.txt" "$python" -m pip install --force-reinstall --no-deps --no-build-isolation --verbose .
say "built and installed in $(took "$start")"

report=$PWD/$logs/torch.xml
rm -f "$report"
status=0
"$python" -m pytest -q -p no:cacheprovider --junitxml="$report" test/torch "$@" || status=$?
[[ -s $report ]] || { echo '0 passed, 1 failed'; exit 1; }
say "  all of it took $(took)"
"$python" - "$report" <<'END'
import sys
import xml.etree.ElementTree
suite = next(xml.etree.ElementTree.parse(sys.argv[1]).iter("testsuite"))
total, bad, skipped = (sum(int(suite.get(name)) for name in names) for names in (("tests",), ("failures", "errors"), ("skipped",)))
if skipped:
    print(f"  {skipped} skipped, counted neither as passed nor as failed")
print(f"{total - bad - skipped} passed, {bad} failed")
END
exit "$status"
