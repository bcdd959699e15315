#!/usr/bin/env bash
# Gives Lacuna a llama.cpp to live in, and prints its folder on stdout.
#
#   tools/get_llama.sh [--own]      --own: build our own even if one is installed
#   tools/get_llama.sh --self-test  does it pass over what it must?
#
# The plug-in is made for one line of ggml (docs/decisions/005), so an installed llama.cpp counts only
# with that. The Makefile hands the answer to CMake as LLAMA_DIR. Taken in this order:
#   1. $LLAMA_DIR, when set (an error when it is unusable);
#   2. an installed one: llama-server on PATH, headers beside it, back ends loaded at run time;
#   3. our own, built once into the cache from the source package that PyPI keeps.
#
# The result looks like llama.cpp's release archives: all libraries and tools side by side in bin/
# (found through $ORIGIN, so the folder can be moved), and the public headers in include/.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=0.3.36 # of the source package; it carries llama.cpp 0.5.0-dev with ggml 0.25.3
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
ggml_line=0.25 # what src/host/ggml/api.cpp takes; FindLlama.cmake warns about any other
recipe=1 # raise when flags or targets below change: everybody's copy is built anew

# --- 1 and 2: what the user has ---------------------------------------------------------------

# The folder below $1 that holds the shared library named $2, or nothing.
lib_folder() {
  local d
  for d in "$1" "$1"/bin "$1"/lib "$1"/lib64 "$1"/lib/*-linux-gnu; do
    [[ -e $d/$2 ]] && { printf '%s\n' "$d"; return 0; }
  done
  return 1
}

# What the plug-in will ask: ggml_version() of the library in folder $1; nothing when it has no answer.
ggml_version() {
  python3 - "$1/libggml-base.so" 2>/dev/null <<'PYTHON'
import ctypes, sys
ask = ctypes.CDLL(sys.argv[1]).ggml_version
ask.restype = ctypes.c_char_p
print(ask().decode())
PYTHON
}

# Empty when $1 is a llama.cpp that can load a plug-in; else the reason why it is not.
why_not() {
  local libs version
  libs=$(lib_folder "$1" libggml.so) || { echo "no libggml.so in $1 (a static build?)"; return; }
  lib_folder "$1" libllama.so >/dev/null || { echo "no libllama.so in $1"; return; }
  [[ -e $1/include/llama.h ]] || { echo "no include/llama.h in $1"; return; }
  # Built with GGML_BACKEND_DL, libggml does not link the CPU back end but loads it.
  if readelf -d "$libs/libggml.so" | grep -q 'NEEDED.*libggml-cpu'; then
    echo "its back ends are linked in (built without GGML_BACKEND_DL)"
    return
  fi
  version=$(ggml_version "$libs") || version=
  [[ $version = "$ggml_line".* ]] || echo "its ggml is ${version:-of unknown version}, the plug-in takes $ggml_line.x"
}

# Small libraries that say they are a ggml of some version.
self_test() {
  local folder wrong=0 case version expected
  folder=$(mktemp -d)
  trap "rm -rf '$folder'" EXIT
  mkdir -p "$folder/include" "$folder/lib"
  touch "$folder/include/llama.h"
  for case in "0.25.3:" "0.25.0:" "0.26.1:takes $ggml_line.x" "0.250.1:takes $ggml_line.x" ":unknown version"; do
    version=${case%%:*} expected=${case#*:}
    if [[ -n $version ]]; then echo "extern \"C\" const char* ggml_version() { return \"$version\"; }"; fi |
      g++ -shared -fPIC -x c++ - -o "$folder/lib/libggml-base.so"
    cp "$folder/lib/libggml-base.so" "$folder/lib/libggml.so"
    cp "$folder/lib/libggml-base.so" "$folder/lib/libllama.so"
    if [[ -z $expected && -n $(why_not "$folder") ]] || [[ $(why_not "$folder") != *"$expected"* ]]; then
      wrong=$((wrong + 1))
      echo "self-test: ggml '$version' is judged: '$(why_not "$folder")'"
    fi
  done
  echo "5 small libraries, $wrong judged wrongly"
  ((wrong == 0))
}

own=no
case ${1:-} in
  --own) own=yes ;;
  --self-test)
    self_test
    exit
    ;;
  '') ;;
  *) die "unknown argument '$1'; usage: tools/get_llama.sh [--own|--self-test]" ;;
esac

if [[ $own = no && -n ${LLAMA_DIR:-} ]]; then
  reason=$(why_not "$LLAMA_DIR")
  [[ -z $reason ]] || die "LLAMA_DIR: $reason; give another folder, or unset it to have one built"
  say "llama.cpp: taken from LLAMA_DIR"
  printf '%s\n' "$LLAMA_DIR"
  exit 0
fi

if [[ $own = no ]] && server=$(command -v llama-server); then
  installed=$(dirname "$(dirname "$(readlink -f "$server")")")
  reason=$(why_not "$installed")
  if [[ -z $reason ]]; then
    say "llama.cpp: the installed one"
    printf '%s\n' "$installed"
    exit 0
  fi
  say "llama.cpp: the installed one is passed over: $reason"
fi

# --- 3: our own -------------------------------------------------------------------------------

prefix=$lacuna_cache/llama-$version
work=$lacuna_cache/llama-$version.build # fixed name: an interrupted build goes on where it stopped
stamp="llama-cpp-python $version, recipe $recipe"

is_ready() { [[ -f $prefix/STAMP && $(<"$prefix/STAMP") == "$stamp" ]]; }
finish() {
  say "llama.cpp: $(<"$prefix/VERSION")"
  printf '%s\n' "$prefix"
  exit 0
}

is_ready && finish
for tool in cmake ninja python3 g++ readelf flock; do
  command -v "$tool" >/dev/null || die "$tool is missing; run 'make setup' first"
done
mkdir -p "$work"
exec 9>"$work.lock"
flock -n 9 || { say "llama.cpp: another build is under way, waiting for it"; flock 9; }
is_ready && finish # the one we waited for did it

log=$work/log.txt
: >"$log"
say "llama.cpp: building our own, once; on two cores this takes eight minutes or so"

if [[ ! -f $work/source/CMakeLists.txt ]]; then
  venv=$(project_venv)
  say "  fetching the source (75 MB) with pip"
  printf 'llama-cpp-python==%s --hash=sha256:%s\n' "$version" "$sha256" >"$work/requirements.txt"
  logged "$log" "$venv/bin/pip" download --quiet --no-cache-dir --no-deps --require-hashes \
    --no-binary llama-cpp-python --dest "$work" --requirement "$work/requirements.txt"
  say "  unpacking"
  rm -rf "$work/unpack" && mkdir "$work/unpack"
  top=llama_cpp_python-$version/vendor/llama.cpp
  tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work/unpack" --exclude='.git*' "$top"
  mv "$work/unpack/$top" "$work/source"
  rm -rf "$work/unpack" "$work"/llama_cpp_python-*.tar.gz
fi

# GCC before 13 drops the store of AMX's tile configuration as dead, and the program dies by SIGILL.
flags=
if [[ $("${CXX:-g++}" --version | head -n 1) != *clang* ]] &&
  (($("${CXX:-g++}" -dumpversion | cut -d. -f1) < 13)); then
  flags='-fno-tree-dse -fno-dse'
fi

# The stock build knows fourteen kinds of x86 machine and chooses at run time; four of them (AVX2,
# AVX-512, AVX-512 with VNNI and BF16, AMX) save two minutes and leave nobody since 2013 out.
sed -i -E '/variant\((x64|sse42|sandybridge|ivybridge|piledriver)\b/d' "$work/source/ggml/src/CMakeLists.txt"
sed -i -E '/variant\((cannonlake|cascadelake|icelake|cooperlake|alderlake)\b/d' "$work/source/ggml/src/CMakeLists.txt"
tools=(llama-bench llama-completion llama-perplexity llama-server)

launcher=()
if command -v ccache >/dev/null; then
  launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi

# shellcheck disable=SC2016 # $ORIGIN is for the dynamic linker
logged "$log" cmake -S "$work/source" -B "$work/build" -G Ninja "${launcher[@]}" \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" \
  -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON '-DCMAKE_INSTALL_RPATH=$ORIGIN' \
  -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CPU_ALL_VARIANTS=ON -DGGML_OPENMP=ON \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF

cmake --build "$work/build" --target llama "${tools[@]}" 2>&1 |
  tee -a "$log" | progress building ||
  { tail -n 30 "$log" >&2; die "the build failed; the whole log: $log"; }

say "  copying"
new=$work/new
rm -rf "$new" && mkdir -p "$new/bin" "$new/include"
cp -a "$work"/build/bin/*.so* "$new/bin/"
for tool in "${tools[@]}"; do cp -a "$work/build/bin/$tool" "$new/bin/"; done
cp "$work"/source/include/*.h "$work"/source/ggml/include/{ggml*.h,gguf.h} "$new/include/"
cp "$work/source/LICENSE" "$new/"
llama=$(sed -n 's/^set(LLAMA_VERSION *\(.*\))$/\1/p' "$work/build/llama-config.cmake")
ggml=$(sed -n 's/^set(GGML_VERSION_\(MAJOR\|MINOR\|PATCH\) \([0-9]*\))$/\2/p' \
  "$work/source/ggml/CMakeLists.txt" | paste -sd.)
printf '%s (ggml %s)\n' "$llama" "$ggml" >"$new/VERSION"
printf '%s\n' "$stamp" >"$new/STAMP"
for tool in "${tools[@]}"; do # does it start from its new place, without the build folder?
  mv "$work/build" "$work/build.away"
  started=yes
  "$new/bin/$tool" --help >>"$log" 2>&1 || started=no
  mv "$work/build.away" "$work/build"
  [[ $started = yes ]] || { tail -n 5 "$log" >&2; die "$tool does not start; see $log"; }
done

rm -rf "$prefix"
mv "$new" "$prefix"
rm -rf "$work"
say "llama.cpp: ready after $(took), $(du -sh "$prefix" | cut -f1)"
finish
