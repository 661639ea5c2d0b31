#!/usr/bin/env bash
# lint.sh [--only=TOOL[,TOOL]...] [--fix] [--tidy-budget=SECONDS] [--build-dir=DIR]
#
# Runs every linter of the project over the tracked files and ends with a table: one line per tool. Exit status 1 when
# one of them found something. Needs scripts/setup.sh --only=build,lint; clang-tidy needs a built tree
# (scripts/build.sh release) and remembers what passed.
#
#   --only=...         clang-format clang-tidy buf shellcheck ruff mypy rustfmt clippy rules (default: all)
#   --fix              let clang-format, ruff and rustfmt repair what they can
#   --tidy-budget=N    stop clang-tidy after N seconds; what was not reached is counted and is no failure
#   --build-dir=DIR    the built tree (default: build/release)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

TOOLS=(clang-format buf shellcheck ruff mypy rules rustfmt clippy clang-tidy)
FIX=0
TIDY_BUDGET=0
BUILD_DIR="$QUICKSAVE_ROOT/build/release"

# sources PATTERN...: tracked and new files that match, NUL-separated, without those that are gone.
sources() {
  local file
  while IFS= read -r -d '' file; do
    [ ! -f "$file" ] || printf '%s\0' "$file"
  done < <(git ls-files -z --cached --others --exclude-standard -- "$@" | sort -zu)
}

# need COMMAND: fails where a tool is not installed.
need() { command -v "$1" >/dev/null || fail "$1 is missing." "scripts/setup.sh --only=lint"; }

# rust_packages: the folders of the project's Rust packages.
rust_packages() { sources '*/Cargo.toml' | xargs -0 -r -n 1 dirname; }

run_clang_format() {
  need clang-format-14
  local mode=(--dry-run -Werror --ferror-limit=3)
  [ $FIX -eq 0 ] || mode=(-i)
  sources '*.cc' '*.cu' '*.h' | xargs -0 -r clang-format-14 --style=file "${mode[@]}"
}

run_clang_tidy() {
  need clang-tidy-14
  [ -f "$BUILD_DIR/compile_commands.json" ] || fail "No built tree in $BUILD_DIR." "scripts/build.sh release"
  "$QUICKSAVE_VENV/bin/python" scripts/clang_tidy.py "$BUILD_DIR" --budget "$TIDY_BUDGET"
}

run_buf() {
  need "$QUICKSAVE_VENV/bin/buf"
  "$QUICKSAVE_VENV/bin/buf" lint proto
}

run_shellcheck() {
  need shellcheck
  { sources '*.sh' && sources .ci/run; } | xargs -0 -r shellcheck -x
}

run_ruff() {
  need "$QUICKSAVE_VENV/bin/ruff"
  if [ $FIX -eq 1 ]; then
    "$QUICKSAVE_VENV/bin/ruff" check --fix --quiet . && "$QUICKSAVE_VENV/bin/ruff" format --quiet .
  else
    "$QUICKSAVE_VENV/bin/ruff" check --quiet . && "$QUICKSAVE_VENV/bin/ruff" format --check --quiet .
  fi
}

run_mypy() {
  need "$QUICKSAVE_VENV/bin/mypy"
  sources '*.py' | xargs -0 -r "$QUICKSAVE_VENV/bin/mypy" --cache-dir "$QUICKSAVE_CACHE/mypy" \
    --python-executable "$QUICKSAVE_VENV/bin/python"
}

run_rustfmt() {
  need cargo
  local package mode=(--check)
  [ $FIX -eq 0 ] || mode=()
  for package in $(rust_packages); do (cd "$package" && cargo fmt -- "${mode[@]}") || return 1; done
}

run_clippy() {
  need cargo
  local package
  for package in $(rust_packages); do
    CARGO_TARGET_DIR="$QUICKSAVE_CARGO_TARGET_DIR" cargo clippy --quiet --release --locked --all-targets \
      --manifest-path "$package/Cargo.toml" -- -D warnings || return 1
  done
}

run_rules() { "$QUICKSAVE_VENV/bin/python" scripts/check_rules.py; }

# run_tools TOOL...: runs each, and prints the table; fails where one of them does.
run_tools() {
  local tool start code status failed=0 table=()
  for tool in "$@"; do
    say "$tool"
    start=$SECONDS
    # In a condition the tool would run without -e.
    set +e
    (
      set -e
      "run_${tool//-/_}"
    )
    code=$?
    set -e
    status=passed
    [ $code -eq 0 ] || { status=FAILED && failed=1; }
    table+=("$(printf '%-14s %-8s %4d s' "$tool" "$status" $((SECONDS - start)))")
  done
  printf '\n'
  printf 'lint: %s\n' "${table[@]}"
  return $failed
}

main() {
  local tools=("${TOOLS[@]}") argument tool
  for argument in "$@"; do
    case "$argument" in
      --only=*) IFS=, read -r -a tools <<<"${argument#--only=}" ;;
      --fix) FIX=1 ;;
      --tidy-budget=*) TIDY_BUDGET="${argument#--tidy-budget=}" ;;
      --build-dir=*) BUILD_DIR="$(realpath -m "${argument#--build-dir=}")" ;;
      -h | --help) usage && exit 0 ;;
      *) fail "unknown argument '$argument'" "See: $0 --help" ;;
    esac
  done
  for tool in "${tools[@]}"; do
    [ "$(type -t "run_${tool//-/_}")" = function ] || fail "unknown tool '$tool'" "See: $0 --help"
  done
  [ -x "$QUICKSAVE_VENV/bin/python" ] || fail "The project's Python environment is missing." "scripts/setup.sh"
  cd "$QUICKSAVE_ROOT"
  run_tools "${tools[@]}"
}

main "$@"
