#!/usr/bin/env bash
# bench.sh [--quick] [--only=weights|encodings] [--profile=FILE]... [--rounds=N] [--json=FILE] [--without=PEER[,PEER]] [--build-dir=DIR]
#
# Measures Quicksave beside its peers on this machine, in one run, and prints both sides of each comparison as Markdown:
# saving and restoring 256, 1,000 and 2,000 tokens, branches, decode and prefill, a second save, and one remote call.
# The peers are Hugging Face transformers and llama.cpp with the same weights in bf16. Then the formats of weights
# (bf16, int8, fp32): their speed beside llama.cpp's BF16 and Q8_0, and what each costs in perplexity. It is a
# benchmark, not a test.
#
# Builds what is missing and keeps it in ${QUICKSAVE_CACHE:-~/.cache/quicksave}/bench: a Python environment with torch
# and transformers (3 GB to download), llama.cpp (20 minutes on two cores), the model as GGUF. Needs scripts/setup.sh
# and scripts/fetch_model.sh. Leave the machine alone while it measures (about half an hour on two cores).
#
#   --quick            one round of a part of it: some minutes, to see that everything runs; not to be quoted
#   --only=weights     only the formats of weights (about two minutes)
#   --only=encodings   only restoring from each encoding, beside computing anew
#   --profile=FILE     a latent profile (quicksave-calibrate), for the encodings; may be given several times
#   --rounds=N         rounds that medians are taken of (default: 3)
#   --json=FILE        where every single answer goes (default: the cache's bench/results/DATE-COMMIT.json)
#   --without=...      leave out a peer: transformers, llama
#   --build-dir=DIR    take quicksave-server and quicksave_bench from this built tree instead of building 'release'
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

BENCH="$QUICKSAVE_CACHE/bench"
VENV="$BENCH/transformers"
LLAMA="$BENCH/llama"
GGUF="$BENCH/SmolLM2-135M-Instruct-BF16.gguf"
GGUF_Q8="$BENCH/SmolLM2-135M-Instruct-Q8_0.gguf"
LLAMA_PACKAGE="llama_cpp_python-0.3.36"
LLAMA_SOURCE="$LLAMA/$LLAMA_PACKAGE/vendor/llama.cpp"
# sentencepiece is what llama.cpp's converter imports, even for models that do not use it.
PYTHON_PACKAGES=(torch==2.11.0 transformers==5.23.0 numpy==2.4.6 safetensors==0.8.0 sentencepiece==0.2.1)
JOBS="${JOBS:-$(nproc)}"

BUILD_DIR=""
JSON=""
WITH_TRANSFORMERS=1
WITH_LLAMA=1
COMPARE=()

# quietly LOG COMMAND...: runs it with its output in a file, whose end is shown when it fails.
quietly() {
  local log="$1"
  shift
  "$@" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "'$1' failed." "All that it said: $log"
  }
}

make_venv() {
  [ ! -e "$VENV/.complete" ] || return 0
  command -v python3 >/dev/null || fail "python3 is missing." "scripts/setup.sh --only=build"
  say "Installing torch and transformers (3 GB) into $VENV"
  quietly "$BENCH/venv.log" python3 -m venv --clear "$VENV"
  quietly "$BENCH/pip.log" nice "$VENV/bin/pip" --no-cache-dir --disable-pip-version-check install "${PYTHON_PACKAGES[@]}"
  touch "$VENV/.complete"
}

# fetch_llama: llama.cpp's source, which the sdist of its Python binding carries.
fetch_llama() {
  [ ! -e "$LLAMA_SOURCE/CMakeLists.txt" ] || return 0
  [ -x "$QUICKSAVE_VENV/bin/pip" ] || fail "The project's Python environment is missing." "scripts/setup.sh --only=build"
  say "Fetching llama.cpp ($LLAMA_PACKAGE, 75 MB)"
  mkdir -p "$LLAMA"
  quietly "$BENCH/fetch.log" "$QUICKSAVE_VENV/bin/pip" --disable-pip-version-check download --no-deps --dest "$LLAMA" \
    --no-binary llama-cpp-python "llama-cpp-python==${LLAMA_PACKAGE##*-}"
  tar -xzf "$LLAMA/$LLAMA_PACKAGE.tar.gz" -C "$LLAMA"
}

build_llama() {
  if [ ! -e "$LLAMA/.complete" ]; then
    say "Building llama.cpp with $JOBS jobs (20 minutes on two cores)"
    quietly "$BENCH/cmake.log" cmake -G Ninja -S "$LLAMA_SOURCE" -B "$LLAMA/build" -DCMAKE_BUILD_TYPE=Release \
      -DBUILD_SHARED_LIBS=ON -DGGML_NATIVE=ON -DGGML_OPENMP=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
      -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_COMMON=OFF \
      -DLLAMA_BUILD_APP=OFF
    quietly "$BENCH/llama.log" nice cmake --build "$LLAMA/build" --target llama --parallel "$JOBS"
    touch "$LLAMA/.complete"
  fi
  quietly "$BENCH/cmake.log" cmake -G Ninja -S "$QUICKSAVE_ROOT/tests/bench/llama" -B "$LLAMA/bench" \
    -DCMAKE_BUILD_TYPE=Release -DLLAMA_SOURCE="$LLAMA_SOURCE" -DLLAMA_BUILD="$LLAMA/build"
  quietly "$BENCH/llama_bench.log" cmake --build "$LLAMA/bench"
}

# make_gguf TYPE FILE: the model for llama.cpp, with llama.cpp's own converter.
make_gguf() {
  [ ! -e "$2" ] || return 0
  say "Converting the model to $1 GGUF"
  HF_HUB_OFFLINE=1 quietly "$BENCH/convert.log" "$VENV/bin/python" "$LLAMA_SOURCE/convert_hf_to_gguf.py" \
    "$QUICKSAVE_MODEL_DIR" --outtype "$1" --outfile "$2.part"
  mv "$2.part" "$2"
}

build_quicksave() {
  if [ -z "$BUILD_DIR" ]; then
    BUILD_DIR="$QUICKSAVE_ROOT/build/release"
    say "Building quicksave-server and quicksave_bench"
    quietly "$BENCH/build.log" "$QUICKSAVE_ROOT/scripts/build.sh" release quicksave-server quicksave_bench
  fi
  local file
  for file in server/quicksave-server tests/bench/quicksave_bench; do
    [ -x "$BUILD_DIR/$file" ] ||
      fail "'$BUILD_DIR/$file' is missing." "scripts/build.sh release quicksave-server quicksave_bench"
  done
}

prepare_peers() {
  if [ $WITH_TRANSFORMERS -eq 1 ] || { [ $WITH_LLAMA -eq 1 ] && { [ ! -e "$GGUF" ] || [ ! -e "$GGUF_Q8" ]; }; }; then make_venv; fi
  [ $WITH_TRANSFORMERS -eq 0 ] || COMPARE+=(--transformers="$VENV/bin/python")
  [ $WITH_LLAMA -eq 1 ] || return 0
  command -v ninja >/dev/null || fail "ninja is missing." "scripts/setup.sh --only=build"
  fetch_llama
  build_llama
  make_gguf bf16 "$GGUF"
  make_gguf q8_0 "$GGUF_Q8"
  COMPARE+=(--llama="$LLAMA/bench/llama_bench" --gguf="$GGUF" --gguf-q8="$GGUF_Q8")
}

# leave_out NAMES: peers that are not to take part.
leave_out() {
  local peer
  for peer in ${1//,/ }; do
    case "$peer" in
      transformers) WITH_TRANSFORMERS=0 ;;
      llama) WITH_LLAMA=0 ;;
      *) fail "unknown peer '$peer'" "There are: transformers, llama" ;;
    esac
  done
}

parse_arguments() {
  local argument
  for argument in "$@"; do
    case "$argument" in
      -h | --help) usage && exit 0 ;;
      --quick) COMPARE+=(--quick) ;;
      --only=weights) COMPARE+=("$argument") && WITH_TRANSFORMERS=0 ;;
      --only=encodings) COMPARE+=("$argument") && WITH_TRANSFORMERS=0 && WITH_LLAMA=0 ;;
      --profile=?*) COMPARE+=("$argument") ;;
      --rounds=[1-9]*) COMPARE+=("$argument") ;;
      --json=?*) JSON="${argument#*=}" ;;
      --without=?*) leave_out "${argument#*=}" ;;
      --build-dir=?*) BUILD_DIR="${argument#*=}" ;;
      *) fail "unknown argument '$argument'" "See: $0 --help" ;;
    esac
  done
}

main() {
  parse_arguments "$@"
  [ -e "$QUICKSAVE_MODEL_DIR/model.safetensors" ] || fail "The model is missing." "scripts/fetch_model.sh"
  mkdir -p "$BENCH/results"
  take_lock bench
  build_quicksave >&2
  prepare_peers >&2
  local commit && commit="$(git -C "$QUICKSAVE_ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)"
  [ -n "$JSON" ] || JSON="$BENCH/results/$(date -u +%Y%m%dT%H%M%SZ)-$commit.json"
  say "Measuring; leave the machine alone" >&2
  python3 "$QUICKSAVE_ROOT/tests/bench/compare.py" --command="scripts/bench.sh $*" --json="$JSON" \
    --server="$BUILD_DIR/server/quicksave-server" --client="$BUILD_DIR/tests/bench/quicksave_bench" \
    --model="$QUICKSAVE_MODEL_DIR" --reference="$QUICKSAVE_ROOT/tests/reference/smollm2_logits.json" "${COMPARE[@]}"
  note "every single answer: $JSON" >&2
}

main "$@"
