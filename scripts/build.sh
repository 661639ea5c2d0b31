#!/usr/bin/env bash
# build.sh [--configure-only] [PRESET] [TARGET]...
#
# Configures and builds one preset of CMakePresets.json (default: release) in build/PRESET. With targets, only those.
# Run scripts/setup.sh --only=build first. JOBS sets the number of parallel jobs (default: as many as there are cores,
# but no more than one for each 2 GiB of memory).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# default_jobs: one job of the compiler can take 2 GiB.
default_jobs() {
  local cores memory_kib by_memory
  cores="$(nproc)"
  memory_kib="$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)"
  by_memory=$((memory_kib / (2 * 1024 * 1024)))
  [ "$by_memory" -ge 1 ] || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

main() {
  local configure_only=0
  case "${1:-}" in
    -h | --help) usage && exit 0 ;;
    --configure-only) configure_only=1 && shift ;;
    -*) fail "unknown argument '$1'" "See: $0 --help" ;;
  esac
  local preset="${1:-release}" jobs="${JOBS:-$(default_jobs)}"
  shift $(($# > 0 ? 1 : 0))
  command -v cmake >/dev/null || fail "cmake is missing." "scripts/setup.sh --only=build"
  cd "$QUICKSAVE_ROOT"
  say "Configuring '$preset'"
  cmake --preset "$preset" \
    -DQUICKSAVE_LIBTORCH="$QUICKSAVE_LIBTORCH" -DQUICKSAVE_GOOGLEAPIS="$QUICKSAVE_GOOGLEAPIS" \
    -DQUICKSAVE_MODEL_DIR="$QUICKSAVE_MODEL_DIR" -DQUICKSAVE_GEMMA_DIR="$QUICKSAVE_GEMMA_DIR" \
    -DQUICKSAVE_PYTHON="$QUICKSAVE_VENV/bin/python" -DQUICKSAVE_CUDA_TOOLKIT="$QUICKSAVE_CUDA_TOOLKIT" \
    -DQUICKSAVE_CARGO_TARGET_DIR="$QUICKSAVE_CARGO_TARGET_DIR"
  [ $configure_only -eq 0 ] || return 0
  say "Building '$preset' with $jobs jobs"
  local targets=()
  [ $# -eq 0 ] || targets=(--target "$@")
  cmake --build "build/$preset" --parallel "$jobs" "${targets[@]}"
}

main "$@"
