#!/usr/bin/env bash
# demo.sh [--keep]
#
# Shows what Quicksave is for, on the real model: chat, save, kill the server without warning, start it again, restore with
# proof, go on to exactly the tokens of an uninterrupted run, branch, and look at the thought graph. Sets up, builds and
# fetches the model first where that has not been done (minutes, once; later runs take under a minute).
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

prepare() {
  say "Preparing"
  "$QUICKSAVE_ROOT/scripts/setup.sh" --only=build
  "$QUICKSAVE_ROOT/scripts/fetch_model.sh"
  "$QUICKSAVE_ROOT/scripts/build.sh" release quicksave quicksave-server
  PATH="$QUICKSAVE_ROOT/build/release/server:$QUICKSAVE_ROOT/build/release/client/cli:$PATH"
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

  chapter "8. Stop"
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
