#include "tests/integration/generation.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quicksave::integration {
namespace {

// Checks the order of events and keeps what they say.
class Collector {
 public:
  bool Add(const client::GenerateEvent& event) {
    if (finished_) error_ = "an event came after `finished`";
    if (!started_ && !std::holds_alternative<client::GenerateStarted>(event))
      error_ = "the first event is not `started`";
    std::visit([this](const auto& value) { Keep(value); }, event);
    return error_.empty();
  }

  absl::StatusOr<Generation> Finish(const absl::StatusOr<client::GenerateFinished>& finished) {
    if (!error_.empty()) return absl::InternalError(error_);
    if (!finished.ok()) return finished.status();
    if (!finished_) return absl::InternalError("no `finished` event came");
    return std::move(generation_);
  }

 private:
  void Keep(const std::monostate&) { error_ = "an event that the client does not know"; }
  void Keep(const client::GenerateStarted& started) {
    if (started_) error_ = "`started` came twice";
    started_ = true;
    generation_.started = started;
  }
  void Keep(const client::GenerateDelta& delta) {
    generation_.deltas++;
    generation_.text += delta.text;
    generation_.tokens.insert(generation_.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  }
  void Keep(const client::SavedNode& saved) { generation_.saved.push_back(saved); }
  void Keep(const client::GenerateFinished& finished) {
    finished_ = true;
    generation_.finished = finished;
  }

  Generation generation_;
  bool started_ = false;
  bool finished_ = false;
  std::string error_;
};

}  // namespace

absl::StatusOr<Generation> Generate(const client::Client& client, const client::GenerateRequest& request,
                                    const client::CallOptions& options) {
  Collector collector;
  const auto add = [&](const client::GenerateEvent& event) { return collector.Add(event); };
  return collector.Finish(client.Generate(request, add, options));
}

std::vector<int32_t> Ids(const std::vector<client::Token>& tokens) {
  std::vector<int32_t> ids;
  ids.reserve(tokens.size());
  for (const client::Token& token : tokens) ids.push_back(token.id);
  return ids;
}

absl::StatusOr<std::vector<int32_t>> TokenIds(const client::Client& client, const std::string& text) {
  absl::StatusOr<std::string> session = NewSession(client, text);
  if (!session.ok()) return session.status();
  absl::StatusOr<client::Session> state = client.GetSession({.name = *session, .view = client::View::kFull});
  if (!state.ok()) return state.status();
  if (absl::Status deleted = client.DeleteSession({.name = *session}); !deleted.ok()) return deleted;
  return state->token_ids;
}

absl::StatusOr<std::string> NewSession(const client::Client& client, const client::Input& input,
                                       const client::SamplingParameters& sampling) {
  absl::StatusOr<Generation> made =
      Generate(client, {.input = input, .sampling = sampling, .stop = {.max_tokens = 0}, .keep_session = true});
  if (!made.ok()) return made.status();
  return made->finished.session;
}

absl::StatusOr<Generation> GoOn(const client::Client& client, const client::GenerateStart& start, int32_t tokens) {
  return Generate(client, {.start = start, .stop = {.max_tokens = tokens, .ignore_eos = true}, .top_logprobs = 20});
}

std::string Prose(int sentences, int seed) {
  static constexpr const char* kPeople[] = {"The baker", "My neighbour", "A young doctor", "The captain",
                                            "Our teacher"};
  static constexpr const char* kDeeds[] = {"counted", "painted", "repaired", "forgot", "sold", "described", "carried"};
  static constexpr const char* kThings[] = {"boats", "letters", "clocks", "lanterns", "maps", "apples"};
  static constexpr const char* kPlaces[] = {"by the river", "in the old mill", "before sunrise", "near the harbour"};
  std::string text;
  for (int i = seed; i < seed + sentences; i++) {
    absl::StrAppendFormat(&text, "%s %s %d %s %s. ", kPeople[i % 5], kDeeds[(i * 3 + 1) % 7], 3 + i * 7 % 90,
                          kThings[(i * 5 + 2) % 6], kPlaces[(i + i / 4) % 4]);
  }
  return text;
}

absl::Status ErrorOf(const absl::Status& status) { return status; }

std::ostream& operator<<(std::ostream& stream, const Generation& generation) {
  stream << absl::StrFormat("%d tokens \"%s\" pending \"%s\" reason %d stop \"%s\"", generation.tokens.size(),
                            generation.text, generation.finished.pending_text,
                            static_cast<int>(generation.finished.reason), generation.finished.stop);
  return stream;
}

}  // namespace quicksave::integration
