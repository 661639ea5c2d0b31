#ifndef QUICKSAVE_SERVER_SERVICE_INPUT_TOKENS_H_
#define QUICKSAVE_SERVER_SERVICE_INPUT_TOKENS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/service/core.h"

namespace quicksave::server {

// Token ids of what a request appends. For a new session a prompt gets the tokenizer's special tokens and messages the
// whole chat template; after a state (`continues`) a prompt is text that goes on, and messages follow the assistant's
// finished reply. INVALID_ARGUMENT for empty input where one is needed, text that is not UTF-8, ids outside of the
// vocabulary.
absl::StatusOr<std::vector<int32_t>> InputTokens(const Core& core, const v1::GenerateRequest& request, bool continues);

// Text as ordinary tokens, control tokens in it included.
absl::StatusOr<std::vector<int32_t>> TextTokens(const Core& core, const std::string& text);

// INVALID_ARGUMENT, naming the first and the range, unless all ids are in the vocabulary.
absl::Status CheckTokenIds(const Core& core, absl::Span<const int32_t> ids);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_INPUT_TOKENS_H_
