#!/usr/bin/env bash
# test.sh [--fast] [--no-lint] [--no-sanitizers]
#
# Checks everything, on a fresh Debian 12 machine too: sets up, fetches the models, builds the release preset, lints, builds
# with the address and undefined-behaviour sanitizers and runs the fast tests there, compiles for GPUs where the CUDA
# compiler can be fetched, then runs every test of the release build. A stage that fails does not keep the others from
# running, as far as they can; the exit status is 1 when one did. The last lines are the summary of the release build's
# tests, and where a stage before them failed, the end of what it printed. Can be run again; what is done is kept.
#
#   --fast            the inner loop: only tests labelled fast, no sanitizers, nothing for GPUs
#   --no-lint         without the linters
#   --no-sanitizers   without the sanitizers
#
# TIDY_BUDGET: seconds that clang-tidy may take (default 600; what was not reached is counted, and is no failure. What passed
# is not checked again until it changes).
# TEST_JOBS: tests to run at a time (default 2). JOBS: see scripts/build.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

FAST=0
LINT=1
SANITIZERS=1
FAILED_STAGES=()
STAGE_TABLE=()
LOGS= # a folder of what the stages print

# stage NAME COMMAND...: runs it, keeps its time, whether it failed and what it printed; returns its status.
stage() {
  local name="$1" start=$SECONDS code=0 status=passed
  shift
  printf '\n'
  say "Stage: $name"
  # Not a pipe, which would wait for what a command leaves running.
  "$@" </dev/null > >(tee "$LOGS/$name") 2>&1 || code=$?
  [ $code -eq 0 ] || { status=FAILED && FAILED_STAGES+=("$name"); }
  STAGE_TABLE+=("$(printf '%-22s %-8s %5d s' "$name" "$status" $((SECONDS - start)))")
  note "${STAGE_TABLE[-1]}"
  return "$code"
}

# require_stage NAME COMMAND...: a stage without which nothing after it makes sense.
require_stage() { stage "$@" || fail "Stage '$1' failed; the rest needs it."; }

# run_tests PRESET [ARGUMENT...]: ctest in the build tree of the preset.
run_tests() {
  local preset="$1"
  shift
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "${TEST_JOBS:-2}" "$@"
}

# build_fast_tests PRESET: the tests labelled fast, and with them only what they need. Everything, where one of them is
# not an executable of its own, since nothing says what such a test needs.
# shellcheck disable=SC2317 # called through stage
build_fast_tests() {
  local preset="$1" tests targets name
  scripts/build.sh --configure-only "$preset" || return 1
  mapfile -t tests < <(ctest --test-dir "build/$preset" -L fast --show-only=json-v1 | jq -r '.tests[].name')
  targets="$(ninja -C "build/$preset" -t targets all | cut -d: -f1)"
  for name in "${tests[@]}"; do
    grep -qxF "$name" <<<"$targets" || { tests=() && break; }
  done
  scripts/build.sh "$preset" "${tests[@]}"
}

check_with_sanitizers() {
  stage "build asan-ubsan" build_fast_tests asan-ubsan || return 0
  UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}" stage "test asan-ubsan" run_tests asan-ubsan -L fast || true
}

# build_and_test_cuda: gives up after 20 minutes, which is no failure.
# shellcheck disable=SC2317 # called through stage
build_and_test_cuda() {
  local code=0
  timeout 1200 scripts/build_cuda.sh --test || code=$?
  [ "$code" -ne 124 ] || { note "not done in 20 minutes; left" && return 0; }
  return "$code"
}

# check_cuda: compiles for GPUs, and runs the tests of that: without a GPU, that the server says so.
check_cuda() {
  printf '\n'
  if scripts/setup.sh --only=cuda; then
    stage "cuda" build_and_test_cuda || true
  else
    STAGE_TABLE+=("$(printf '%-22s %s' cuda 'skipped: its compiler cannot be fetched')")
  fi
}

print_stages() {
  printf '\n'
  printf 'stage: %s\n' "${STAGE_TABLE[@]}"
  printf '\n'
}

# print_failures: the end of what each failed stage printed, since the tests' own lines have come after it.
print_failures() {
  local name
  for name in "${FAILED_STAGES[@]}"; do
    printf '\n'
    say "Stage $name failed; the end of what it printed:"
    tail -n 40 "$LOGS/$name"
  done
}

main() {
  local argument groups=build,test labels=()
  for argument in "$@"; do
    case "$argument" in
      --fast) FAST=1 ;;
      --no-lint) LINT=0 ;;
      --no-sanitizers) SANITIZERS=0 ;;
      -h | --help) usage && exit 0 ;;
      *) fail "unknown argument '$argument'" "See: $0 --help" ;;
    esac
  done
  [ $FAST -eq 0 ] || { SANITIZERS=0 && labels=(-L fast); }
  [ $LINT -eq 0 ] || groups+=,lint

  cd "$QUICKSAVE_ROOT"
  LOGS="$(mktemp -d)"
  trap 'rm -rf "$LOGS"' EXIT
  require_stage "setup" scripts/setup.sh "--only=$groups"
  require_stage "model" scripts/fetch_model.sh
  # Half a minute and 238 MB, once. Without it the tests of that model are skipped, and say so.
  [ $FAST -eq 1 ] || stage "model gemma3-270m" scripts/fetch_model.sh gemma3-270m || true
  require_stage "build release" scripts/build.sh release
  [ $LINT -eq 0 ] || stage "lint" scripts/lint.sh "--tidy-budget=${TIDY_BUDGET:-600}" || true
  [ $SANITIZERS -eq 0 ] || check_with_sanitizers
  [ $FAST -eq 1 ] || check_cuda
  print_stages

  local code=0
  run_tests release "${labels[@]}" </dev/null || code=$?
  print_failures
  [ ${#FAILED_STAGES[@]} -eq 0 ] || fail "Failed before the tests above: ${FAILED_STAGES[*]}"
  exit $code
}

main "$@"
