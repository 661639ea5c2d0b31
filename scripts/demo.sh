#!/usr/bin/env bash
# demo.sh [--keep]
#
# Shows what Quicksave is for, on the real model: chat, save, kill the server without warning, start it again, restore with
# proof, go on to exactly the tokens of an uninterrupted run, branch, look at the thought graph, and keep a state in a
# fraction of the space: exactly, and approximately within a budget. Sets up, builds, fetches the model and calibrates it
# first where that has not been done (minutes, once; later runs take a minute).
# Stops by itself; exit status 0 when everything held.
#
#   --keep   keep the folder with the store and the server's log, and say where it is
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

QUESTION="Write a short story about a lighthouse keeper who finds a message in a bottle."
SEED=7
SAMPLING=(--temperature 0.8 --top-p 0.95)
KEEP=0
WORK=""
SERVER_PID=""

# show COMMAND...: prints a command as one would type it, then runs it.
show() {
  printf '\033[36m$ %s\033[0m\n' "${*@Q}" | sed "s|'||g" >&2
  "$@"
}

chapter() { printf '\n\033[1m%s\033[0m\n' "$*"; }

cleanup() {
  [ -z "$SERVER_PID" ] || kill "$SERVER_PID" 2>/dev/null || true
  [ -z "$SERVER_PID" ] || wait "$SERVER_PID" 2>/dev/null || true
  if [ $KEEP -eq 1 ]; then
    note "kept: $WORK"
  elif [ -n "$WORK" ]; then
    rm -rf "$WORK"
  fi
}

start_server() {
  local waited=0
  rm -f "$WORK/port"
  quicksave-server --model "$QUICKSAVE_MODEL_DIR" --data "$WORK/store" --listen 127.0.0.1:0 \
    --port-file "$WORK/port" >>"$WORK/server.log" 2>&1 &
  SERVER_PID=$!
  until [ -s "$WORK/port" ] && QUICKSAVE_ENDPOINT="127.0.0.1:$(cat "$WORK/port")" \
    quicksave health --service quicksave.v1.SnapshotService >/dev/null 2>&1; do
    kill -0 "$SERVER_PID" 2>/dev/null || fail "The server ended: $(tail -n 3 "$WORK/server.log")"
    [ $((waited += 1)) -lt 1200 ] || fail "The server was not ready within two minutes."
    [ $((waited % 50)) -ne 0 ] || note "$(tail -n 1 "$WORK/server.log" | cut -c 1-110)"
    sleep 0.1
  done
  QUICKSAVE_ENDPOINT="127.0.0.1:$(cat "$WORK/port")"
  export QUICKSAVE_ENDPOINT
}

# tokens FILE: the tokens of a generation's JSON events, each with the log-probabilities of itself and of the five likeliest.
tokens() { jq -c 'select(.event == "delta") | .tokens[] | [.id, .logprob, [.top[].logprob]]' "$1"; }

saved_node() { jq -r 'select(.event == "saved") | .node.name' "$1"; }

# calibrate FILE: makes the latent profiles of the splits 0 and 6, FILE-0.safetensors and FILE-6.safetensors.
calibrate() {
  local texts=("$QUICKSAVE_ROOT"/README.md "$QUICKSAVE_ROOT"/docs/*.md "$QUICKSAVE_ROOT"/{server,storage,client}/*/*.cc) text
  for text in /usr/share/common-licenses/*; do
    [ ! -f "$text" ] || [ -h "$text" ] || texts+=("$text")
  done
  take_lock profiles
  mkdir -p "$(dirname "$1")"
  note "calibrating profiles of this model, about two minutes, once"
  # Under other names first, so that what is there is whole.
  quicksave-calibrate --model "$QUICKSAVE_MODEL_DIR" --text "${texts[@]}" --out "$WORK/profile.safetensors" --split 0,6 \
    --tokens 16384 --gradient-pieces 8 2> >(tee "$WORK/calibrate.log" | awk 'NR % 5 == 1 { print "    " $0; fflush() }' >&2) ||
    fail "Calibrating failed: $(tail -n 1 "$WORK/calibrate.log")"
  mv "$WORK/profile-0.safetensors" "$1-0.safetensors"
  mv "$WORK/profile-6.safetensors" "$1-6.safetensors"
}

# load_profiles: has the server load the profiles of its model, and makes them where there are none that it takes.
load_profiles() {
  local file split
  file="$QUICKSAVE_CACHE/profiles/$(quicksave --json status | jq -r '.model.fingerprint' | cut -c 1-32)"
  for split in 0 6; do
    quicksave --quiet profiles --load "$file-$split.safetensors" >/dev/null 2>&1 || { calibrate "$file" && break; }
  done
  for split in 0 6; do
    quicksave --quiet profiles --load "$file-$split.safetensors" >/dev/null
  done
}

# sizes NODE: what a node takes as it was in memory, as saved, and in each of its encodings.
sizes() {
  quicksave --json show "$1" | jq -r '
    def row(name; bytes; all): "    \(name)\t\(bytes / 1e6 * 100 | round / 100) MB\t\(all / bytes * 10 | round / 10) times smaller";
    .node // . | (.storage.raw_bytes // 0) as $raw | ([.encodings[]?.raw_bytes, $raw] | max) as $all |
    row("in memory"; $all; $all), (select(.saved_dropped | not) | row("as saved"; .storage.stored_bytes; $all)),
    (.encodings[]? | row("latent, split \(.split)"; .stored_bytes; $all),
      (select(.has_residual) | row("with its residual"; .stored_bytes + .residual_bytes; $all)))' | column -t -s $'\t'
}

encodings() {
  local node="$1" session
  chapter "8. Keep a state in a fraction of the space"
  load_profiles
  show quicksave profiles
  show quicksave encode "$node" --point default --residual
  sizes "$node"
  note "latent and residual have every bit, so the blocks as saved may go:"
  show quicksave drop "$node" --saved
  show quicksave restore "$node" --exact-only
  quicksave --json generate --node "$node" --max-tokens 40 --logprobs 5 >"$WORK/layered.json"
  cmp -s <(tokens "$WORK/uninterrupted.json") <(tokens "$WORK/layered.json") ||
    fail "The run from latent and residual differs from the uninterrupted one." "Compare $WORK/uninterrupted.json and $WORK/layered.json (use --keep)."
  note "restored from them, the node goes on to exactly the same tokens"
  note "and where a mean divergence of 0.1 nats will do, the latent alone is read:"
  show quicksave restore "$node" --max-kl 0.1
  session="$(quicksave --json ls --sessions | jq -r '.sessions[-1].name')"
  show quicksave generate --session "$session" --max-tokens 40
}

prepare() {
  say "Preparing"
  "$QUICKSAVE_ROOT/scripts/setup.sh" --only=build
  "$QUICKSAVE_ROOT/scripts/fetch_model.sh"
  "$QUICKSAVE_ROOT/scripts/build.sh" release quicksave quicksave-server quicksave-calibrate
  PATH="$QUICKSAVE_ROOT/build/release/server:$QUICKSAVE_ROOT/build/release/server/sidecar:$QUICKSAVE_ROOT/build/release/client/cli:$PATH"
  WORK="$(mktemp -d)"
  trap cleanup EXIT
}

story() {
  local node seed leaves=()
  chapter "1. Start the server on a free port of this machine and chat"
  start_server
  note "listening on $QUICKSAVE_ENDPOINT, model $(basename "$QUICKSAVE_MODEL_DIR")"
  show quicksave generate --message "$QUESTION" --max-tokens 48 "${SAMPLING[@]}" --seed $SEED --save --label chapter=one --keep
  node="$(quicksave ls --names | head -n 1)"
  note "saved as $node"

  chapter "2. Let an uninterrupted run go on, to compare with later"
  quicksave --json generate --session "$(quicksave --json ls --sessions | jq -r '.sessions[0].name')" \
    --max-tokens 40 --logprobs 5 >"$WORK/uninterrupted.json"
  note "$(tokens "$WORK/uninterrupted.json" | wc -l) tokens with their log-probabilities kept"

  chapter "3. Kill the server without warning (SIGKILL) and start it again"
  kill -KILL "$SERVER_PID"
  wait "$SERVER_PID" 2>/dev/null || true
  start_server
  note "a new process on $QUICKSAVE_ENDPOINT; its memory is empty, the node is on disk"

  chapter "4. Restore, with proof"
  show quicksave restore "$node"
  show quicksave verify --replay "$node"

  chapter "5. Go on from the node: the same tokens as if never stopped?"
  show quicksave generate --node "$node" --max-tokens 40
  quicksave --json generate --node "$node" --max-tokens 40 --logprobs 5 >"$WORK/restored.json"
  [ -n "$(tokens "$WORK/restored.json")" ] || fail "The continuation has no tokens."
  cmp -s <(tokens "$WORK/uninterrupted.json") <(tokens "$WORK/restored.json") ||
    fail "The restored run differs from the uninterrupted one." "Compare $WORK/uninterrupted.json and $WORK/restored.json (use --keep)."
  note "yes: $(tokens "$WORK/restored.json" | wc -l) tokens and log-probabilities, all the same"

  chapter "6. Branch in four, with different seeds"
  show quicksave branch "$node" --seeds 1,2,3,4
  for seed in 1 2 3 4; do
    quicksave --json generate --node "$node" --seed $seed --max-tokens 24 --save --label "seed=$seed" >"$WORK/branch.json"
    leaves+=("$(saved_node "$WORK/branch.json")")
  done
  quicksave generate --node "${leaves[0]}" --max-tokens 24 --save --label chapter=two >/dev/null
  quicksave generate --node "$node" --at-token 70 --seed 5 --max-tokens 24 --save --label rewound=70 >/dev/null

  chapter "7. The thought graph"
  show quicksave tree
  show quicksave status

  encodings "$node"

  chapter "9. Stop"
  kill -TERM "$SERVER_PID"
  wait "$SERVER_PID" || fail "The server did not end cleanly."
  SERVER_PID=""
  note "The server drained and ended cleanly. Everything above held."
}

main() {
  case "${1:-}" in
    "") ;;
    --keep) KEEP=1 ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown argument '$1'" "See: $0 --help" ;;
  esac
  prepare
  story
}

main "$@"
