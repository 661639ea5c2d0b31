// What tests do again and again over the wire: generate and keep everything that came, make sessions of known tokens.

#ifndef QUICKSAVE_TESTS_INTEGRATION_GENERATION_H_
#define QUICKSAVE_TESTS_INTEGRATION_GENERATION_H_

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quicksave/client.h"

namespace quicksave::integration {

// All that one Generate said.
struct Generation {
  client::GenerateStarted started;
  // Texts of all deltas, one after the other.
  std::string text;
  std::vector<client::Token> tokens;
  std::vector<client::SavedNode> saved;
  client::GenerateFinished finished;
  // Deltas that came.
  int deltas = 0;
};

// Generates to the end. INTERNAL when the order of events is not started, deltas and saves, finished.
absl::StatusOr<Generation> Generate(const client::Client& client, const client::GenerateRequest& request,
                                    const client::CallOptions& options = {});

std::vector<int32_t> Ids(const std::vector<client::Token>& tokens);

// Token ids of a text, as the server's tokenizer gives them.
absl::StatusOr<std::vector<int32_t>> TokenIds(const client::Client& client, const std::string& text);

// Makes a session of a text, or of token ids, without generating anything, and returns its name.
absl::StatusOr<std::string> NewSession(const client::Client& client, const client::Input& input,
                                       const client::SamplingParameters& sampling = {});

// Goes on from `start` for exactly `tokens` tokens with the 20 most likely alternatives of each.
absl::StatusOr<Generation> GoOn(const client::Client& client, const client::GenerateStart& start, int32_t tokens);

// English of some `sentences` * 14 tokens; another `seed` gives another text from the first words on.
std::string Prose(int sentences, int seed = 0);

// The error of a call, for EXPECTs on code and text.
absl::Status ErrorOf(const absl::Status& status);
template <class Value>
absl::Status ErrorOf(const absl::StatusOr<Value>& value) {
  return value.status();
}

// For messages of failed tests.
std::ostream& operator<<(std::ostream& stream, const Generation& generation);

}  // namespace quicksave::integration

// NOLINTBEGIN(bugprone-macro-parentheses): a declaration cannot stand in them.
// Evaluates `expression`, a StatusOr, and puts its value into `declaration`; on an error the test fails and ends.
#define QUICKSAVE_ASSERT_OK_AND_ASSIGN(declaration, expression) \
  QUICKSAVE_ASSERT_OK_AND_ASSIGN_(declaration, expression, QUICKSAVE_CONCATENATE_(status_or_, __LINE__))
#define QUICKSAVE_CONCATENATE_INNER_(left, right) left##right
#define QUICKSAVE_CONCATENATE_(left, right) QUICKSAVE_CONCATENATE_INNER_(left, right)
#define QUICKSAVE_ASSERT_OK_AND_ASSIGN_(declaration, expression, result) \
  auto result = (expression);                                            \
  ASSERT_TRUE(result.ok()) << result.status();                           \
  declaration = std::move(result).value()
// NOLINTEND(bugprone-macro-parentheses)

#endif  // QUICKSAVE_TESTS_INTEGRATION_GENERATION_H_
