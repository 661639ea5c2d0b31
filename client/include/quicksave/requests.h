// Requests and answers of SnapshotService. See graph_requests.h for those of GraphService, server.h for those of
// AdminService and health.
//
// Requests are plain values, made to be written with designated initializers:
//   client.Restore({.node = "nodes/7f3a", .at_token = 120});

#ifndef QUICKSAVE_REQUESTS_H_
#define QUICKSAVE_REQUESTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "quicksave/encoding.h"
#include "quicksave/types.h"

namespace quicksave::client {

// A starting point: a live session that the call extends or reads.
struct FromSession {
  // `sessions/{session}`.
  std::string name;

  bool operator==(const FromSession&) const = default;
};

// A starting point: a node, restored into a new session.
struct FromNode {
  // `nodes/{node}`.
  std::string name;
  // Rewind to this many of its tokens, 1 to its token_count; unset takes all.
  std::optional<int32_t> at_token;
  // Do not check the next-token distribution. Checksums and block identities are always checked.
  bool skip_check = false;

  bool operator==(const FromNode&) const = default;
};

// Where Generate starts; std::monostate starts a new session.
using GenerateStart = std::variant<std::monostate, FromSession, FromNode>;
// Where Branch and Score start; std::monostate is refused by the server.
using Start = std::variant<std::monostate, FromSession, FromNode>;

// Input of a generation: nothing (go on), text, chat messages through the model's chat template, or token ids as they
// are. Control tokens written in text are ordinary text.
using Input = std::variant<std::monostate, std::string, std::vector<ChatMessage>, std::vector<int32_t>>;

// How to save a state.
struct SaveOptions {
  // Labels of the node.
  std::map<std::string, std::string> labels;
  // Note of the node.
  std::string note;
  // Edge type from the session's node; kUnspecified lets the server choose, kMerge is refused.
  EdgeType edge_type = EdgeType::kUnspecified;

  bool operator==(const SaveOptions&) const = default;
};

struct GenerateRequest {
  // Where to start from.
  GenerateStart start;
  // What to append first. A new session needs some; otherwise std::monostate goes on from the state.
  Input input;
  // How to draw tokens; they become the session's settings. Unset fields keep what the state has.
  SamplingParameters sampling;
  // When to stop.
  StopConditions stop;
  // What the generated text is held to, from its first token on. It stays in force in the session, and is saved and
  // restored with it, until its text is complete, the model ends its turn, or a generation brings input or another
  // constraint; so one without input and constraint goes on inside it.
  std::optional<Constraint> constraint;
  // Hidden states to capture, see Client::ReadTaps. They stay with the session, and are saved and restored with it.
  // Unset goes on with what the session captures; another spec drops what it has, one without layers ends it. Without
  // input the state's last token is evaluated once more, if need be, to have its hidden states.
  std::optional<TapSpec> taps;
  // Return log-probabilities with this many alternatives for each token, 0 to 100; unset returns none.
  std::optional<int32_t> top_logprobs;
  // Save the final state as a node.
  std::optional<SaveOptions> save;
  // With `save`: also save after every so many generated tokens.
  std::optional<int32_t> save_every_tokens;
  // Keep the session that this call makes. Otherwise it ends with the call; a session that was given always stays.
  bool keep_session = false;
  // Lease of the session, also of one that was given; unset takes the server's default, or what that session has.
  std::optional<absl::Duration> lease;
  // UUID, only with `save`: a repeat returns the first answer, without the alternatives of its tokens. Made by the
  // client when empty and `save` is set.
  std::string request_id;
};

// First event of a generation: what it starts from.
struct GenerateStarted {
  // The session; it outlives the call only if that was asked for or it existed before.
  std::string session;
  // Tokens that were there before: of the session or the node.
  int32_t reused_tokens = 0;
  // Tokens of the input that are appended.
  int32_t input_tokens = 0;
  // With FromNode: the proof of its restore.
  std::optional<Proof> proof;
  // Of the input's tokens, those at the beginning that were not computed again, because a sequence in memory begins
  // with them. Bit for bit the same as if they had been.
  int32_t shared_tokens = 0;
  // Of the input's tokens, those at the beginning that were restored from the store instead, because a node or a parked
  // session begins with them and that was estimated to be faster. Proved, and bit for bit the same as if they had been
  // computed.
  int32_t restored_tokens = 0;
  // The node that they came from; empty when they are a parked session's. The new session does not depend on it.
  std::string restored_node;

  bool operator==(const GenerateStarted&) const = default;
};

// New tokens of a generation.
struct GenerateDelta {
  // Text that is complete: whole characters, and nothing that may still become a stop string.
  std::string text;
  // The tokens. Their text may come in a later delta.
  std::vector<Token> tokens;

  bool operator==(const GenerateDelta&) const = default;
};

// A node that was saved, and what saving it did.
struct SavedNode {
  Node node;
  SaveReport report;
  // Of a Snapshot that was to encode the node: what was stored besides; unset when nothing kept to the budget.
  std::optional<Encoding> encoding;
  // Why the node could not be encoded; empty when it could.
  std::string encoding_error;

  bool operator==(const SavedNode&) const = default;
};

// Why a generation ended.
enum class FinishReason {
  // Not said.
  kUnspecified = 0,
  // The model ended its turn. Its end-of-turn token is not part of the state.
  kEndOfTurn = 1,
  // A stop string or stop token came. A stop token is not part of the state, the tokens of a stop string are.
  kStop = 2,
  // As many tokens as were asked for.
  kMaxTokens = 3,
  // The state is as long as the model can take.
  kContextFull = 4,
  // The text is complete under its constraint: nothing may follow.
  kConstraintComplete = 5,
};

// Last event of a generation: how it ended.
struct GenerateFinished {
  FinishReason reason = FinishReason::kUnspecified;
  // The stop string or the text of the stop token, when one ended it.
  std::string stop;
  // Tokens generated.
  int32_t generated_tokens = 0;
  // Tokens of the state now.
  int32_t token_count = 0;
  // Text held back because it may become a stop string or is an incomplete character; going on delivers it.
  std::string pending_text;
  // The session, when it outlives the call.
  std::string session;
  // Time spent computing the input.
  absl::Duration prefill_time;
  // Time spent generating.
  absl::Duration decode_time;
  // This is the remembered answer to an earlier request with the same request_id.
  bool replayed = false;

  bool operator==(const GenerateFinished&) const = default;
};

// One event of a generation. std::monostate is an event of a newer server that this library does not know.
using GenerateEvent = std::variant<std::monostate, GenerateStarted, GenerateDelta, SavedNode, GenerateFinished>;

struct SnapshotRequest {
  // The session, `sessions/{session}`.
  std::string session;
  // How to save it.
  SaveOptions save;
  // Also encode the saved node, as EncodeNode does, within `budget`, and drop the blocks as saved when that is asked
  // for and an encoding keeps to it. The save stands, whatever comes of that.
  std::optional<EncodingSpec> encoding;
  FidelityBudget budget;
  bool drop_saved = false;
  // UUID; a repeat returns the first answer without its report, also after a restart of the server. Made by the client
  // when empty.
  std::string request_id;
};

struct RestoreRequest {
  // The node, `nodes/{node}`.
  std::string node;
  // Rewind to this many of its tokens, 1 to its token_count; unset takes all.
  std::optional<int32_t> at_token;
  // Sampler settings that replace the node's; unset fields keep them.
  SamplingParameters sampling;
  // Lease of the session; unset takes the server's default.
  std::optional<absl::Duration> lease;
  // Do not check the next-token distribution. Checksums and block identities are always checked.
  bool skip_check = false;
  // UUID; a repeat returns the first answer for as long as the server runs. Made by the client when empty.
  std::string request_id;
  // Take the bits that were saved, or fail.
  bool exact_only = false;
  // A lossy encoding within these bounds will do, if it is estimated to be faster. Without bounds lossy encodings are
  // only for nodes that have no exact one left, the most faithful first.
  FidelityBudget budget;
};

struct RestoreResponse {
  Session session;
  Proof proof;

  bool operator==(const RestoreResponse&) const = default;
};

struct BranchRequest {
  // What to branch from. A session stays as it is; a node is restored once.
  Start start;
  // Sessions to make; unset makes as many as there are seeds, or 1.
  std::optional<int32_t> count;
  // Seeds, one for each session; none keeps the state's seed in all of them.
  std::vector<uint64_t> seeds;
  // Sampler settings that replace the state's; their seed is replaced by `seeds`.
  SamplingParameters sampling;
  // Lease of the sessions; unset takes the server's default.
  std::optional<absl::Duration> lease;
  // UUID; a repeat returns the first answer for as long as the server runs. Made by the client when empty.
  std::string request_id;
};

struct BranchResponse {
  // The sessions, in the order of the seeds.
  std::vector<Session> sessions;
  // With FromNode: the proof of its restore.
  std::optional<Proof> proof;
  // Time that making all the sessions took in the engine.
  absl::Duration branch_time;

  bool operator==(const BranchResponse&) const = default;
};

// A continuation to score: text (control tokens in it are ordinary text), or token ids as they are.
using Continuation = std::variant<std::string, std::vector<int32_t>>;

struct ScoreRequest {
  // What the continuations continue.
  Start start;
  // The continuations, at least one.
  std::vector<Continuation> continuations;
  // Alternatives to return for each token, 0 to 1,000.
  int32_t top_k = 0;
};

// How likely a continuation is.
struct ContinuationScore {
  // Its tokens with their log-probabilities.
  std::vector<Token> tokens;
  // Sum of the log-probabilities, in nats.
  double total_logprob = 0;

  bool operator==(const ContinuationScore&) const = default;
};

struct ScoreResponse {
  // A score for each continuation, in order.
  std::vector<ContinuationScore> scores;
  // With FromNode: the proof of its restore.
  std::optional<Proof> proof;

  bool operator==(const ScoreResponse&) const = default;
};

struct GetSessionRequest {
  // The session, `sessions/{session}`.
  std::string name;
  View view = View::kBasic;
};

struct ListSessionsRequest {
  // Most sessions to return, 1 to 1,000; 0 takes 100.
  int32_t page_size = 0;
  // next_page_token of the page before.
  std::string page_token;
};

struct ListSessionsResponse {
  // The sessions, oldest first.
  std::vector<Session> sessions;
  // Give it to get the next page; empty at the end.
  std::string next_page_token;

  bool operator==(const ListSessionsResponse&) const = default;
};

struct ReadTapsRequest {
  // Whose hidden states to read; nothing else of FromNode than its name is used.
  Start source;
  // Layers to read, each once; none reads all that were captured.
  std::vector<uint32_t> layers;
  // First token to read; unset takes the first that has hidden states.
  std::optional<int32_t> first_token;
  // Tokens to read, at least 1; unset takes all from there on.
  std::optional<int32_t> token_count;
};

// Hidden states of some tokens at some layers.
struct HiddenStates {
  // The layers, ascending, counted as TapSpec says.
  std::vector<uint32_t> layers;
  // Position of the first token.
  int32_t first_token = 0;
  // Number of tokens.
  int32_t token_count = 0;
  // Width of the residual stream.
  int32_t hidden_size = 0;
  // Fingerprint of the model that computed them.
  std::string model_fingerprint;
  // Elements [layers, token_count, hidden_size], with the bits that the engine computed.
  std::vector<float> values;

  bool operator==(const HiddenStates&) const = default;
};

struct DeleteSessionRequest {
  // The session, `sessions/{session}`.
  std::string name;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_REQUESTS_H_
