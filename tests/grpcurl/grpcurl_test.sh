#!/usr/bin/env bash
# grpcurl_test.sh SERVER MODEL GRPCURL
#
# Types every remote call of the server with grpcurl, as people do, and checks what comes back with jq. Nothing but the
# server's own reflection tells grpcurl what the messages are. Exit status 77 (skipped) where grpcurl or jq is missing.
set -euo pipefail

SERVER="$1"
MODEL="$2"
GRPCURL="$3"
WORK="$(mktemp -d)"
CHECKS=0

finish() {
  local code=$?
  [ -z "${SERVER_PID:-}" ] || kill -KILL "$SERVER_PID" 2>/dev/null || true
  [ $code -eq 0 ] || [ ! -f "$WORK/log" ] || { echo "The end of the server's log:" && tail -n 20 "$WORK/log"; } >&2
  rm -rf "$WORK"
}
trap finish EXIT

[ -x "$GRPCURL" ] || { echo "no grpcurl at '$GRPCURL'; scripts/setup.sh builds it" && exit 77; }
command -v jq >/dev/null || { echo "no jq" && exit 77; }

start_server() {
  "$SERVER" --model "$MODEL" --data "$WORK/data" --listen 127.0.0.1:0 --port-file "$WORK/port" --no-calibration --threads 1 \
    >"$WORK/log" 2>&1 &
  SERVER_PID=$!
}

# grpc ARGUMENT...: grpcurl with a time limit.
grpc() { "$GRPCURL" -plaintext -max-time 300 "$@"; }

# call METHOD REQUEST: one call; its answers, one JSON value each, are in $ANSWER.
call() {
  WHAT="$1 $2"
  ANSWER="$(grpc -d "$2" "$ADDRESS" "quicksave.v1.$1")" || { echo "failed: $WHAT" >&2 && exit 1; }
}

# expect JQ: the answers, as one array, satisfy it.
expect() {
  CHECKS=$((CHECKS + 1))
  jq -se "$1" <<<"$ANSWER" >/dev/null || { printf 'not so: %s\nafter: %s\nanswer: %s\n' "$1" "$WHAT" "$ANSWER" >&2 && exit 1; }
}

# get JQ: a value of the answers.
get() { jq -sr "$1" <<<"$ANSWER"; }

# refuse METHOD REQUEST CODE: a call that fails with the code and says why.
refuse() {
  CHECKS=$((CHECKS + 1))
  local error
  if error="$(grpc -d "$2" "$ADDRESS" "quicksave.v1.$1" 2>&1)"; then
    echo "not refused: $1 $2" >&2 && exit 1
  fi
  grep -q "Code: $3" <<<"$error" || { printf 'refused otherwise: %s %s\n%s\n' "$1" "$2" "$error" >&2 && exit 1; }
  grep -q 'google.rpc.ErrorInfo' <<<"$error" || { printf 'without ErrorInfo: %s %s\n%s\n' "$1" "$2" "$error" >&2 && exit 1; }
}

health() { grpc -d "{\"service\": \"$1\"}" "$ADDRESS" grpc.health.v1.Health/Check 2>/dev/null; }

# poll COMMAND...: until it succeeds; fails when the server ends or two minutes are over.
poll() {
  local deadline=$((SECONDS + 120))
  until "$@"; do
    if ! kill -0 "$SERVER_PID" || [ $SECONDS -ge $deadline ]; then
      echo "the server did not become ready: $*" >&2 && exit 1
    fi
    sleep 0.2
  done
}

is_serving() { health "$1" | jq -e '.status == "SERVING"' >/dev/null; }

wait_until_ready() {
  poll test -s "$WORK/port"
  ADDRESS="127.0.0.1:$(cat "$WORK/port")"
  poll is_serving quicksave.v1.SnapshotService
}

check_reflection() {
  local services
  services="$(grpc "$ADDRESS" list)"
  for service in quicksave.v1.SnapshotService quicksave.v1.GraphService quicksave.v1.AdminService \
    grpc.health.v1.Health; do
    grep -qx "$service" <<<"$services" || { echo "not listed: $service" >&2 && exit 1; }
  done
  grpc "$ADDRESS" describe quicksave.v1.GenerateRequest | grep -q '^message GenerateRequest'
  WHAT="health of the process"
  ANSWER="$(health "")"
  expect '.[0].status == "SERVING"'
}

check_generation() {
  call SnapshotService/Generate \
    '{"messages": {"messages": [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]},
      "save": {"labels": {"topic": "france"}, "note": "asked once"}, "keep_session": true,
      "request_id": "8a3d7c52-5b0e-4f6c-9a51-0c6f3a6d2e01"}'
  expect '[.[].delta.text // ""] | add == "The capital of France is Paris."'
  expect '.[0].started.input_tokens > 10'
  expect '.[-1].finished.reason == "REASON_END_OF_TURN"'
  NODE="$(get '.[] | .saved.node.name // empty')"
  SESSION="$(get '.[-1].finished.session')"
  call SnapshotService/Generate \
    "{\"node\": \"$NODE\", \"messages\": {\"messages\": [{\"role\": \"user\", \"content\": \"And of Italy?\"}]},
      \"stop\": {\"max_tokens\": 4}, \"top_logprobs\": 2}"
  expect '.[0].started.proof.check.outcome == "OUTCOME_IDENTICAL"'
  expect '.[0].started.proof | has("tokens_recomputed") | not'
  expect '[.[].delta.tokens // [] | .[]] | length == 4 and all(.top | length == 2)'
}

check_sessions() {
  call SnapshotService/Restore "{\"node\": \"$NODE\", \"lease\": \"60s\", \"sampling\": {\"temperature\": 0.7, \"seed\": \"7\"}}"
  expect '.[0].proof.check.logits_compared == 49152'
  expect '.[0].session.sampling.seed == "7"'
  RESTORED="$(get '.[0].session.name')"
  call SnapshotService/Branch "{\"session\": \"$RESTORED\", \"seeds\": [1, 2, 3]}"
  expect '.[0].sessions | length == 3'
  expect '[.[0].sessions[].sampling.seed] == ["1", "2", "3"]'
  BRANCH="$(get '.[0].sessions[0].name')"
  call SnapshotService/Generate "{\"session\": \"$BRANCH\", \"prompt\": \" And\", \"stop\": {\"max_tokens\": 2}}"
  expect '.[-1].finished.generated_tokens == 2'
  call SnapshotService/Snapshot "{\"session\": \"$BRANCH\", \"save\": {\"labels\": {\"topic\": \"branch\"}}}"
  expect '.[0].node.parents[0].type == "EDGE_TYPE_CONTINUATION" and .[0].report.shared_blocks >= 1'
  expect ".[0].node.parents[0].parent == \"$NODE\""
  CHILD="$(get '.[0].node.name')"
  call SnapshotService/Score "{\"node\": \"$NODE\", \"continuations\": [{\"text\": \" Yes\"}, {\"token_ids\": {\"ids\": [504, 260]}}], \"top_k\": 3}"
  expect '.[0].scores | length == 2 and all(.total_logprob < 0)'
  expect '.[0].scores[1].tokens | map(.id) == [504, 260]'
  call SnapshotService/GetSession "{\"name\": \"$SESSION\", \"view\": \"SESSION_VIEW_FULL\"}"
  expect '.[0].session.text | endswith("Paris.")'
  call SnapshotService/ListSessions '{"page_size": 2}'
  expect '.[0].sessions | length == 2'
  expect '.[0].next_page_token != ""'
  call SnapshotService/DeleteSession "{\"name\": \"$RESTORED\"}"
  refuse SnapshotService/GetSession "{\"name\": \"$RESTORED\"}" NotFound
}

check_taps() {
  call SnapshotService/Generate \
    '{"prompt": "Once upon a time", "stop": {"max_tokens": 3}, "save": {}, "keep_session": true,
      "taps": {"layers": [10, 0, 30], "tokens": "TOKENS_ALL"}}'
  local session node
  session="$(get '.[-1].finished.session')"
  node="$(get '.[] | .saved.node.name // empty')"
  expect '[.[].saved.node.taps // empty] | .[0] | .spec.layers == [0, 10, 30] and .token_count == 7 and .hidden_size == 576'
  expect '[.[].saved.node.taps // empty] | .[0] | .bytes == "48384" and (.stored_bytes | tonumber) > 0'
  call SnapshotService/ReadTaps "{\"node\": \"$node\", \"layers\": [10], \"first_token\": 2, \"token_count\": 4}"
  expect '.[0].header | .dtype == "F32" and .layers == [10] and .token_count == 4 and .total_bytes == "9216"'
  expect '[.[1:][].chunk.data | @base64d | length] | length > 0'
  expect '.[1].chunk | .layer == 10 and .first_token == 2 and .crc32c > 0'
  local stored
  stored="$(get '.[1].chunk.data')"
  call SnapshotService/ReadTaps "{\"session\": \"$session\", \"layers\": [10], \"first_token\": 2, \"token_count\": 4}"
  expect ".[1].chunk.data == \"$stored\""
  call SnapshotService/GetSession "{\"name\": \"$session\"}"
  expect '.[0].session.taps.spec.tokens == "TOKENS_ALL"'
  refuse SnapshotService/ReadTaps "{\"node\": \"$node\", \"layers\": [11]}" InvalidArgument
  refuse SnapshotService/ReadTaps "{\"node\": \"$NODE\"}" FailedPrecondition
  refuse SnapshotService/Generate '{"prompt": "a", "taps": {"layers": [32]}}' InvalidArgument
  call SnapshotService/DeleteSession "{\"name\": \"$session\"}"
  call GraphService/DeleteNode "{\"name\": \"$node\"}"
}

check_graph() {
  call GraphService/GetNode "{\"name\": \"$NODE\", \"view\": \"NODE_VIEW_FULL\"}"
  expect '.[0].node | .labels.topic == "france" and .note == "asked once" and (.token_ids | length) == .token_count'
  expect '.[0].node.blocks | length >= 1'
  call GraphService/ListNodes '{"filter": {"labels": {"topic": "branch"}}}'
  expect ".[0].nodes | map(.name) == [\"$CHILD\"]"
  call GraphService/UpdateNode "{\"node\": {\"name\": \"$CHILD\", \"rewards\": {\"good\": 0.5}}, \"update_mask\": {\"paths\": [\"rewards.good\"]}}"
  expect '.[0].node.rewards.good == 0.5 and .[0].node.labels.topic == "branch"'
  call GraphService/Traverse "{\"node\": \"$NODE\", \"direction\": \"TRAVERSE_DIRECTION_DESCENDANTS\"}"
  expect ".[0].nodes | map(.name) == [\"$NODE\", \"$CHILD\"]"
  call GraphService/VerifyNode "{\"name\": \"$CHILD\", \"replay\": true}"
  expect '.[0].blocks_checked >= 1 and .[0].tokens_replayed > 10'
  refuse GraphService/DeleteNode "{\"name\": \"$NODE\"}" FailedPrecondition
  refuse GraphService/GetNode '{"name": "sessions/x"}' InvalidArgument
  call GraphService/DeleteNode "{\"name\": \"$NODE\", \"force\": true}"
  expect '.[0].deleted_nodes == 2'
}

check_admin() {
  call AdminService/CollectGarbage '{}'
  expect 'length == 1'
  call AdminService/GetStatus '{}'
  expect '.[0].model.architecture == "LlamaForCausalLM" and .[0].model.layers == 30'
  expect '.[0].limits.max_sessions >= 1 and .[0].server.durability == "sync"'
  expect '.[0].store | has("nodes") | not'
}

check_end() {
  kill -TERM "$SERVER_PID"
  local code=0
  wait "$SERVER_PID" || code=$?
  SERVER_PID=
  [ $code -eq 0 ] || { echo "the server ended with $code" >&2 && exit 1; }
}

start_server
wait_until_ready
check_reflection
check_generation
check_sessions
check_taps
check_graph
check_admin
check_end
echo "passed: $CHECKS checks"
