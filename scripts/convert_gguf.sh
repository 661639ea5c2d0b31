#!/usr/bin/env bash
# convert_gguf.sh FILE DIRECTORY
#
# Converts a GGUF file to a Hugging Face directory with bf16 weights, which quicksave-server can load: config, weights
# (dequantised and rounded to bf16), tokenizer, and the chat template where the file has one. Architectures: llama,
# qwen2, qwen3 and gemma3. What is not known to convert correctly (another pre-tokenizer, an unknown setting or tensor)
# is refused with the name of what it is. Run scripts/setup.sh first.
#
# DIRECTORY is made whole or not at all, and must not be there.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

main() {
  case "${1:-}" in
    -h | --help) usage && exit 0 ;;
  esac
  [ $# -eq 2 ] || fail "needs a file and a directory" "See: $0 --help"
  local file="$1" directory="$2" work
  [ -f "$file" ] || fail "There is no file '$file'."
  [ ! -e "$directory" ] || fail "'$directory' is there already." "Remove it, or name another one."
  [ -x "$QUICKSAVE_VENV/bin/python" ] || fail "The project's Python environment is missing." "scripts/setup.sh --only=build"
  mkdir -p "$(dirname "$directory")"
  work="$(mktemp -d "$(dirname "$directory")/.convert.XXXXXX")"
  # shellcheck disable=SC2064 # the folder's name now, not at the end
  trap "rm -rf '$work'" EXIT
  "$QUICKSAVE_VENV/bin/python" "$QUICKSAVE_ROOT/scripts/convert_gguf.py" "$file" "$work/model"
  chmod 644 "$work"/model/*
  mv "$work/model" "$directory"
}

main "$@"
