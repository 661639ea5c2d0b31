// What a Quicksave server keeps, as plain values: sessions, nodes, edges, tokens, and the proof of a restore.
//
// Times that the server did not give are absl::InfinitePast(), sizes are bytes, token positions count from 0.
// Enumerations may gain values: a value of a newer server that this library does not know is read as kUnspecified.

#ifndef QUICKSAVE_TYPES_H_
#define QUICKSAVE_TYPES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "quicksave/encoding.h"

namespace quicksave::client {

// How the next token is drawn. Unset fields keep the value that the session has; a new session starts with the
// defaults. Order of application: repetition, presence and frequency penalty, logit bias, the constraint, temperature,
// top-k, top-p, min-p.
struct SamplingParameters {
  // 0 (default) is greedy: the token of the largest logit, the lowest id on a tie. Range 0 to 100.
  std::optional<float> temperature;
  // Keep the k most likely tokens; 0 (default) keeps all.
  std::optional<int32_t> top_k;
  // Keep the smallest set of tokens with at least this total probability; 1 (default) keeps all. Range (0, 1].
  std::optional<float> top_p;
  // Keep tokens with at least this fraction of the most likely token's probability; 0 (default) keeps all. Range [0,
  // 1).
  std::optional<float> min_p;
  // Divides positive and multiplies negative logits of tokens already in the state; 1 (default) is off. Range [0.01,
  // 100].
  std::optional<float> repetition_penalty;
  // Seed of the counter-based generator: seed and position fix the draw, whatever ran before. Default 0.
  std::optional<uint64_t> seed;
  // Taken from the logits of tokens already in the state, input included; 0 (default) is off. Range -2 to 2.
  std::optional<float> presence_penalty;
  // Taken from the logits of tokens in the state for each time they are there, input included; 0 (default) is off.
  // Range -2 to 2.
  std::optional<float> frequency_penalty;
  // Token id to what is added to its logit, -100 to 100, at most 300 entries; an empty map ends the session's biases.
  std::optional<std::map<int32_t, float>> logit_bias;

  bool operator==(const SamplingParameters&) const = default;
};

// The text is one JSON value that this JSON schema accepts.
struct JsonSchema {
  std::string text;

  bool operator==(const JsonSchema&) const = default;
};

// The whole text matches this regular expression, which has no look-around.
struct Regex {
  std::string text;

  bool operator==(const Regex&) const = default;
};

// The text is one of these, 1 to 1,000, none of them empty.
struct Choices {
  std::vector<std::string> texts;

  bool operator==(const Choices&) const = default;
};

// The text is one of a grammar in llguidance's dialect of Lark, with a rule `start`.
struct LarkGrammar {
  std::string text;

  bool operator==(const LarkGrammar&) const = default;
};

// What generated text is held to; std::monostate ends the constraint that a session is under.
using Constraint = std::variant<std::monostate, JsonSchema, Regex, Choices, LarkGrammar>;

// A constraint that is in force, and how far it has come.
struct ActiveConstraint {
  // What the text is held to; std::monostate when it is of a kind that this library does not know.
  Constraint definition;
  // The last tokens of the state that were generated under it.
  int32_t token_count = 0;

  bool operator==(const ActiveConstraint&) const = default;
};

// When a generation ends, besides the model's own end-of-turn tokens.
struct StopConditions {
  // Most tokens to generate. Default and limit are the server's, see Client::GetStatus().
  std::optional<int32_t> max_tokens;
  // Texts that end the generation; they are not part of the returned text. At most 16 of 256 bytes.
  std::vector<std::string> strings;
  // Token ids that end the generation, besides the model's own. At most 64.
  std::vector<int32_t> token_ids;
  // Go on after the model's own end-of-turn tokens.
  bool ignore_eos = false;

  bool operator==(const StopConditions&) const = default;
};

// One message of a chat.
struct ChatMessage {
  // Who speaks, in the model's chat template: `system`, `user`, `assistant`.
  std::string role;
  // What is said. Control tokens written in it are ordinary text.
  std::string content;

  bool operator==(const ChatMessage&) const = default;
};

// One token with its probability.
struct TokenProbability {
  // Token id.
  int32_t id = 0;
  // The token as text, printable.
  std::string text;
  // Natural logarithm of its probability under the model, before temperature and penalties.
  float logprob = 0;

  bool operator==(const TokenProbability&) const = default;
};

// A token of an answer.
struct Token {
  // Token id.
  int32_t id = 0;
  // Natural logarithm of its probability under the model, before temperature and penalties; set when asked for.
  std::optional<float> logprob;
  // The most likely tokens at this position, best first; as many as were asked for.
  std::vector<TokenProbability> top;

  bool operator==(const Token&) const = default;
};

// How the check of a restored next-token distribution ended. A mismatch fails the call with DATA_LOSS.
enum class CheckOutcome {
  // Not said.
  kUnspecified = 0,
  // Every logit has the same bits.
  kIdentical = 1,
  // Not checked, because the caller asked for that.
  kSkipped = 2,
  // Rewound to a token whose logits were not stored; the recomputed K and V of that token have the stored bits.
  kKvIdentical = 3,
  // The state is a decoded latent, and its distribution diverges from the stored one as was measured when it was
  // encoded.
  kAsMeasured = 4,
  // The state is a decoded latent, rewound to a token whose logits were not stored; what was decoded are the values
  // that
  // were measured.
  kValuesAsMeasured = 5,
};

// How a restored next-token distribution compares with the one stored when the node was saved.
struct DistributionCheck {
  CheckOutcome outcome = CheckOutcome::kUnspecified;
  // Logits compared, normally the whole vocabulary.
  int32_t logits_compared = 0;
  // Largest absolute difference of two logits.
  float max_abs_difference = 0;
  // Kullback-Leibler divergence of the restored distribution from the stored one, in nats.
  double kl_divergence = 0;

  bool operator==(const DistributionCheck&) const = default;
};

// Time by stage of a restore. Stages of different blocks overlap, so `total` may be less than their sum.
struct RestoreTiming {
  // Reading from the store.
  absl::Duration read;
  // Decoding with the check of each block's identity, summed over threads.
  absl::Duration decode;
  // Writing K and V into pages, summed over threads.
  absl::Duration load;
  // Evaluating the last token for the check.
  absl::Duration check;
  // From the call to the session being usable.
  absl::Duration total;
  // Computing again what the encoding left out.
  absl::Duration replay;

  bool operator==(const RestoreTiming&) const = default;
};

// What a restore did: nothing is recomputed or served from elsewhere without being said here.
struct Proof {
  // Tokens whose K and V came from the store.
  int32_t tokens_reused = 0;
  // Tokens whose K and V were computed again, because the store did not have them.
  int32_t tokens_recomputed = 0;
  // Bytes read from the store: blocks and logits.
  int64_t bytes_read = 0;
  // Bytes of K and V that those became in memory.
  int64_t bytes_restored = 0;
  // Codec of the blocks.
  std::string codec;
  // The check of the restored next-token distribution.
  DistributionCheck check;
  // Where the time went.
  RestoreTiming timing;
  // The encoding that was read, unless it was the one as saved; with what was measured of it when it was made.
  std::optional<Encoding> encoding;
  // Whether the state has the bits that were saved.
  bool exact = false;
  // Layers whose K and V were computed again for all tokens, from the token ids.
  int32_t layers_recomputed = 0;
  // What the restore was estimated to take, which chose the encoding; the time it took is in `timing`.
  absl::Duration estimate;

  bool operator==(const Proof&) const = default;
};

// Hidden states to capture with a session: the residual stream at chosen places of the model. Layers are counted as in
// `hidden_states` of Hugging Face transformers: 0 is the embeddings, i the residual stream after i layers, and the
// number of layers, L, what follows the final norm. Besides, L + 1 is the residual stream after the last layer.
struct TapSpec {
  // The layers, 0 to the model's layers + 1, each once. None ends capturing.
  std::vector<uint32_t> layers;
  // Keep those of every token that is evaluated from here on, input and generated ones; otherwise of the last token of
  // the state only.
  bool all_tokens = false;

  bool operator==(const TapSpec&) const = default;
};

// Hidden states that a session or a node has: fp32, as the engine computed them, for consecutive tokens.
struct Taps {
  // What is captured; the layers ascend.
  TapSpec spec;
  // Position of the first token whose hidden states are there.
  int32_t first_token = 0;
  // Tokens whose hidden states are there.
  int32_t token_count = 0;
  // Width of the residual stream.
  int32_t hidden_size = 0;
  // Bytes of the hidden states.
  int64_t bytes = 0;
  // Of a node: stored bytes of them, those shared with other nodes included.
  int64_t stored_bytes = 0;

  bool operator==(const Taps&) const = default;
};

// A live decoding state in the server's memory: tokens, KV pages, next-token logits, sampler.
// It dies with the server, with its lease or by DeleteSession; a Node does not.
struct Session {
  // Resource name, `sessions/{session}`.
  std::string name;
  // Fingerprint of the model whose state this is.
  std::string model_fingerprint;
  // Tokens in the state. The KV cache covers all of them.
  int32_t token_count = 0;
  // The node that it was restored from or last saved as, `nodes/{node}`; empty when it has none.
  std::string node;
  // Tokens that it has in common with `node`.
  int32_t node_token_count = 0;
  // Sampler settings that a Generate without settings of its own goes on with.
  SamplingParameters sampling;
  // When the session was made.
  absl::Time create_time = absl::InfinitePast();
  // When the lease ends; each call on the session renews it.
  absl::Time expire_time = absl::InfinitePast();
  // KV pages that it refers to; pages shared with other sessions are counted too.
  int32_t pages = 0;
  // Token ids of the state; filled by GetSession with View::kFull only.
  std::vector<int32_t> token_ids;
  // Text of the state, control tokens included; filled by GetSession with View::kFull only.
  std::string text;
  // Its K and V are parked in the store, because others needed the memory; the next call brings them back.
  bool parked = false;
  // Hidden states that it captures and has.
  std::optional<Taps> taps;
  // The constraint that a Generate without input goes on under; filled by GetSession with View::kFull only.
  std::optional<ActiveConstraint> constraint;

  bool operator==(const Session&) const = default;
};

// How much of a session or node to return.
enum class View {
  // Everything except token ids, text and blocks.
  kBasic,
  // Everything.
  kFull,
};

// How a node came from its parent.
enum class EdgeType {
  // Not set. In a request: the server chooses.
  kUnspecified = 0,
  // Goes on from the parent's end.
  kContinuation = 1,
  // Tokens or state of the parent were edited.
  kIntervention = 2,
  // Another way on from a point of the parent before its end.
  kCounterfactual = 3,
  // Made of several parents.
  kMerge = 4,
};

// A typed link from a parent.
struct Edge {
  // The parent, `nodes/{node}`.
  std::string parent;
  // How the node came from it.
  EdgeType type = EdgeType::kUnspecified;
  // The first `at_token` tokens are the parent's.
  int32_t at_token = 0;

  bool operator==(const Edge&) const = default;
};

// Sizes of a stored state.
struct Storage {
  // Codec of the blocks.
  std::string codec;
  // Bytes of K and V as the engine holds them.
  int64_t raw_bytes = 0;
  // Stored bytes of all blocks of this state, shared ones included.
  int64_t stored_bytes = 0;
  // Stored bytes that this node added; the rest it shares with nodes saved before it.
  int64_t added_bytes = 0;
  // raw_bytes / stored_bytes.
  double ratio = 0;
  // Blocks of this state.
  int32_t blocks = 0;
  // Bytes of next-token logits.
  int64_t logits_bytes = 0;

  bool operator==(const Storage&) const = default;
};

// A stored piece of K and V of all layers, content-addressed, at most 128 tokens.
struct Block {
  // Content identity (XXH3-128 of shape and bits), in hexadecimal.
  std::string id;
  // First token that it covers.
  int32_t first_token = 0;
  // Tokens that it covers.
  int32_t token_count = 0;
  // Bytes of K and V as the engine holds them.
  int64_t raw_bytes = 0;
  // Stored bytes.
  int64_t stored_bytes = 0;

  bool operator==(const Block&) const = default;
};

// An immutable saved session state, a vertex of the thought graph. Labels, rewards and note may change, the state
// never.
struct Node {
  // Resource name, `nodes/{node}`.
  std::string name;
  // Fingerprint of the model whose state this is.
  std::string model_fingerprint;
  // Tokens in the state.
  int32_t token_count = 0;
  // Links to the nodes that it came from; none for a root.
  std::vector<Edge> parents;
  // Caller's own key-value pairs. Keys of 1 to 63 and values of up to 255 bytes, at most 64.
  std::map<std::string, std::string> labels;
  // Named rewards, finite numbers, at most 64.
  std::map<std::string, double> rewards;
  // Free text, at most 65,536 bytes.
  std::string note;
  // Changes with every update; give it to UpdateNode and DeleteNode to act on this version only.
  std::string etag;
  // When the node was saved.
  absl::Time create_time = absl::InfinitePast();
  // When labels, rewards or note last changed.
  absl::Time update_time = absl::InfinitePast();
  // Sampler settings of the state.
  SamplingParameters sampling;
  // What is stored.
  Storage storage;
  // Parts of the state that this node does not have; empty means that it is complete.
  std::vector<std::string> lacks;
  // Token ids of the state; View::kFull only.
  std::vector<int32_t> token_ids;
  // Text of the state, control tokens included; View::kFull only, and only from a server of the same model.
  std::string text;
  // Last characters of the text, for lists and trees.
  std::string text_tail;
  // Blocks of the state in order; View::kFull only.
  std::vector<Block> blocks;
  // Hidden states that were saved with it.
  std::optional<Taps> taps;
  // Other encodings of its K and V, beside the one as saved. Errors by layer: View::kFull only.
  std::vector<Encoding> encodings;
  // The blocks as saved were dropped: the state is in `encodings` alone.
  bool saved_dropped = false;
  // The state descends from a lossy restore, and these first tokens of it were decoded there; 0 in most nodes. What was
  // saved is restored exactly, but it is not what the model computes from the token ids alone.
  int32_t lossy_tokens = 0;
  // The constraint that a Generate without input goes on under; View::kFull only.
  std::optional<ActiveConstraint> constraint;

  bool operator==(const Node&) const = default;
};

// What a save did.
struct SaveReport {
  // Stored bytes that were new: blocks, logits, hidden states and record.
  int64_t written_bytes = 0;
  // Bytes of K and V that were encoded for it.
  int64_t encoded_bytes = 0;
  // Blocks encoded and written.
  int32_t new_blocks = 0;
  // Blocks that were already stored.
  int32_t shared_blocks = 0;
  // Copying K and V out of pages, summed over threads.
  absl::Duration gather;
  // Encoding and hashing, summed over threads.
  absl::Duration encode;
  // Committing to the store.
  absl::Duration commit;
  // From the call to the acknowledgement.
  absl::Duration total;

  bool operator==(const SaveReport&) const = default;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_TYPES_H_
