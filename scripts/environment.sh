# shellcheck shell=bash
# Sourced by the other scripts: where things are cached, and how the scripts speak.
# Sets QUICKSAVE_ROOT (the checkout), QUICKSAVE_CACHE (downloads and everything made from them; outside the checkout).

QUICKSAVE_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export QUICKSAVE_ROOT
export QUICKSAVE_CACHE="${QUICKSAVE_CACHE:-${HOME:-/root}/.cache/quicksave}"
export QUICKSAVE_VENV="$QUICKSAVE_CACHE/venv"
export QUICKSAVE_LIBTORCH="$QUICKSAVE_CACHE/libtorch"
export QUICKSAVE_CUDA_TOOLKIT="$QUICKSAVE_CACHE/cuda/nvidia/cu13"
export QUICKSAVE_GOOGLEAPIS="$QUICKSAVE_CACHE/googleapis"
export QUICKSAVE_MODEL_DIR="$QUICKSAVE_CACHE/models/SmolLM2-135M-Instruct"
export QUICKSAVE_GEMMA_DIR="$QUICKSAVE_CACHE/models/gemma-3-270m" # of the tests of model families, see fetch_model.sh
# Shared by the presets: the Rust library is the same in all. A checkout that changes it wants a folder of its own.
export QUICKSAVE_CARGO_TARGET_DIR="${QUICKSAVE_CARGO_TARGET_DIR:-$QUICKSAVE_CACHE/cargo}"

# Absolute paths below the checkout are made relative in ccache's keys, so that two checkouts share results.
export CCACHE_DIR="${CCACHE_DIR:-$QUICKSAVE_CACHE/ccache}"
export CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-5G}"
export CCACHE_BASEDIR="${CCACHE_BASEDIR:-$QUICKSAVE_ROOT}"
export CCACHE_NOHASHDIR=1

export PATH="$QUICKSAVE_CACHE/bin:$PATH:${HOME:-/root}/.cargo/bin:/usr/local/go/bin"

# say TEXT...: one line of progress.
say() { printf '\033[1m==> %s\033[0m\n' "$*"; }

# note TEXT...: a detail below a line of progress.
note() { printf '    %s\n' "$*"; }

# fail TEXT...: ends the script; says what is missing and how to get it.
fail() {
  printf '\033[1;31merror:\033[0m %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# usage: prints the comment at the top of the calling script, without its first line.
usage() { awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"; }

# as_root COMMAND...: runs it as root, through sudo where needed.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$1' needs root, and there is no sudo." "Run as root, or install sudo, or run this as root: $*"
  fi
}

# version_at_least HAVE WANT: compares dotted version numbers.
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# take_lock NAME: waits until no other script holds the lock of that name in the cache; held until this script ends.
take_lock() {
  mkdir -p "$QUICKSAVE_CACHE"
  exec {QUICKSAVE_LOCK_FD}>"$QUICKSAVE_CACHE/.$1.lock"
  flock -n "$QUICKSAVE_LOCK_FD" || { note "waiting for another run ($1)"; flock "$QUICKSAVE_LOCK_FD"; }
}
