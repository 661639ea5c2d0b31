#!/usr/bin/env bash
# build_cuda.sh [--test]
#
# Builds a server that runs on the CPU and, with --device cuda, on NVIDIA GPUs from the A100 on:
# build/cuda/server/quicksave-server. Fetches the CUDA compiler (102 MB, once); the machine needs neither a GPU nor a CUDA
# installation for that, and to run on a GPU only its driver (580 or newer).
#
#   --test   run the tests of the GPU, too (label gpu), and keep what they print in build/cuda/gpu_tests.txt. Where there
#            is no GPU those that need one are skipped, and say so; docs/gpu.md describes them.
#
# TEST_JOBS: tests to run at a time (default 2). JOBS: see scripts/build.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

RECORD=build/cuda/gpu_tests.txt

# describe_machine: what the tests ran on.
describe_machine() {
  date -u '+%Y-%m-%d %H:%M UTC'
  git describe --always --dirty
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv || echo "nvidia-smi fails"
  else
    echo "no nvidia-smi"
  fi
}

main() {
  local test=0
  case "${1:-}" in
    -h | --help) usage && exit 0 ;;
    --test) test=1 ;;
    "") ;;
    *) fail "unknown argument '$1'" "See: $0 --help" ;;
  esac
  cd "$QUICKSAVE_ROOT"
  scripts/setup.sh --only=build,cuda
  if [ $test -eq 0 ]; then
    scripts/build.sh cuda quicksave-server
    say "Built build/cuda/server/quicksave-server"
    return
  fi
  scripts/fetch_model.sh
  scripts/build.sh cuda quicksave-server quicksave_gpu_tests
  { describe_machine && ctest --test-dir build/cuda -L gpu --verbose --no-tests=error --parallel "${TEST_JOBS:-2}"; } 2>&1 |
    tee "$RECORD"
  say "Kept in $RECORD"
}

main "$@"
