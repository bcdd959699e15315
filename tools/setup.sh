#!/usr/bin/env bash
# Installs what is missing, and only that. Says nothing when nothing is missing.
#
# On Debian and its relatives through apt-get (with sudo when not root); elsewhere it names what to
# install and goes on as long as the tools themselves are there.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# What Lacuna needs, one line each: how to see it | Debian package | its name elsewhere.
# A word with a slash is looked for as a header or file, any other as a command.
needs='
g++                        | g++                | a C++20 compiler (GCC 12 or newer)
make                       | make               | make
git                        | git                | git
cmake                      | cmake              | CMake 3.25 or newer
ninja                      | ninja-build        | Ninja
ccache                     | ccache             | ccache (optional: faster rebuilds)
readelf                    | binutils           | binutils
python3                    | python3            | Python 3.9 or newer
python/ensurepip           | python3-venv       | the venv module of Python
python/pip                 | python3-pip        | pip
include/gtest/gtest.h      | libgtest-dev       | GoogleTest
include/nlohmann/json.hpp  | nlohmann-json3-dev | nlohmann/json
include/CLI/CLI.hpp        | libcli11-dev       | CLI11
include/fmt/format.h       | libfmt-dev         | fmt
dpkg/debian-policy         | debian-policy      | the Debian policy manual (text for the demo)
ca/certificates            | ca-certificates    | root certificates
'
# Only for tests, of the page that compare writes: tools/setup.sh --check
check_needs='
chromium                   | chromium           | Chromium (optional: tests of the report page)
'
# Only for the presets fuzz and tidy, and for formatting: tools/setup.sh --dev
dev_needs='
clang++                    | clang              | Clang
clang/libfuzzer            | libclang-rt-14-dev | the run-time libraries of Clang
clang-format               | clang-format       | clang-format
clang-tidy                 | clang-tidy         | clang-tidy
'
case ${1:-} in
  --check) needs+=$check_needs ;;
  --dev) needs+=$check_needs$dev_needs ;;
  '') ;;
  *) die "unknown argument '$1'; usage: tools/setup.sh [--check | --dev]" ;;
esac

present() {
  case $1 in
    # In the compiler's own path, so that a private prefix counts too.
    include/*) echo "#include <${1#include/}>" | g++ -E -x c++ - >/dev/null 2>&1 ;;
    python/*) python3 -c "import ${1#python/}" 2>/dev/null ;;
    dpkg/*) ! command -v dpkg-query >/dev/null ||
      dpkg-query -W -f '${Status}' "${1#dpkg/}" 2>/dev/null | grep -q 'ok installed' ;;
    ca/*) [[ -s /etc/ssl/certs/ca-certificates.crt || -d /etc/pki || ! -d /etc/ssl/certs ]] ;;
    clang/libfuzzer) [[ -n $(find /usr/lib -name 'libclang_rt.fuzzer-*.a' 2>/dev/null | head -n 1) ]] ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

packages=() names=()
while IFS='|' read -r probe package name; do
  probe=${probe// /} package=${package// /} name=${name# }
  [[ -n $probe ]] || continue
  present "$probe" || { packages+=("$package"); names+=("$name"); }
done <<<"$needs"

((${#packages[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
  say "missing, please install with your system's own means:"
  printf '  %s\n' "${names[@]}" >&2
  for tool in g++ cmake python3; do
    command -v "$tool" >/dev/null || die "Lacuna cannot be built without $tool"
  done
  say "going on without"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
    as_root=(sudo)
  else
    say "missing, and not allowed to install. Please run as root:"
    say "  apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
    exit 1
  fi
fi

say "installing: ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@" >>"$log" 2>&1; }
install() { apt install -y --no-install-recommends "${packages[@]}"; }

# The package list may be absent (fresh image) or stale: refresh it only when needed.
if ! install; then
  say "  refreshing the package list"
  apt update || say "  (apt-get update complained; trying anyway)"
  if ! install; then
    tail -n 20 "$log" >&2
    die "apt-get could not install: ${packages[*]}"
  fi
fi
say "installed in $(took)"
