#!/usr/bin/env bash
# fuzz.sh [SECONDS] [TARGET]...
#
# Builds the libFuzzer programs of tests/fuzz/ with Clang and the address and undefined-behaviour sanitizers, and runs
# each for SECONDS (default 60): all decoders that take bytes from outside, or only the targets named (exact_block
# exact_profile latent_block latent_profile learned_block learned_profile residual_block row_block stored_value). Needs
# scripts/setup.sh --only=build,fuzz.
#
# What a run finds interesting is kept in build/fuzz/corpus/TARGET and starts the next run. An input that breaks a decoder is
# left in build/fuzz/found/ and fails the script: mend the decoder, and add the input to tests/fuzz/corpus/TARGET, where
# decoder_hostile_test tries it in every run of the tests.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Memory of a program, and of one allocation, in MiB. Inputs are small; what asks for more trusts a number in them.
RSS_LIMIT=1024
ALLOCATION_LIMIT=64

# fuzz_target TARGET SECONDS: one program, from the tree's corpus and what earlier runs found.
fuzz_target() {
  local target="$1" seconds="$2" kept="build/fuzz/corpus/$1" found="build/fuzz/found"
  mkdir -p "$kept" "$found"
  say "Fuzzing $target for $seconds s"
  ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}" UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}" \
    "build/fuzz/tests/fuzz/${target}_fuzzer" -max_total_time="$seconds" -timeout=10 -max_len=65536 \
    -rss_limit_mb=$RSS_LIMIT -malloc_limit_mb=$ALLOCATION_LIMIT -artifact_prefix="$found/${target}_" \
    -verbosity=0 -print_final_stats=1 "$kept" "tests/fuzz/corpus/$target"
}

main() {
  case "${1:-}" in -h | --help) usage && exit 0 ;; esac
  local seconds="${1:-60}" target targets=() failed=()
  [[ "$seconds" =~ ^[1-9][0-9]*$ ]] || fail "'$seconds' is no number of seconds" "See: $0 --help"
  shift $(($# > 0 ? 1 : 0))
  cd "$QUICKSAVE_ROOT"
  scripts/build.sh fuzz quicksave_fuzzers
  for target in tests/fuzz/corpus/*/; do targets+=("$(basename "$target")"); done
  [ $# -eq 0 ] || targets=("$@")
  for target in "${targets[@]}"; do
    [ -x "build/fuzz/tests/fuzz/${target}_fuzzer" ] || fail "unknown target '$target'" "See: $0 --help"
    fuzz_target "$target" "$seconds" || failed+=("$target")
  done
  [ ${#failed[@]} -eq 0 ] || fail "Broken: ${failed[*]}" "The inputs are in build/fuzz/found/."
  say "Nothing found in ${#targets[@]} targets"
}

main "$@"
