// From what a person types to a resource name: `nodes/7f3a9c21`, `7f3a9c21`, or the first 4 or more characters of an
// id.

#ifndef QUICKSAVE_CLIENT_CLI_NAMES_H_
#define QUICKSAVE_CLIENT_CLI_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cli/command.h"
#include "quicksave/graph_requests.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

// Returns the name of the one node that `text` means. NOT_FOUND when there is none, INVALID_ARGUMENT, naming some of
// them, when it is the beginning of several, and when it is the name of a session.
absl::StatusOr<std::string> ResolveNode(const CommandContext& context, const std::string& text);
// The same for sessions.
absl::StatusOr<std::string> ResolveSession(const CommandContext& context, const std::string& text);
// Returns a node or a session; text without `nodes/` or `sessions/` is looked for among nodes first.
absl::StatusOr<client::Start> ResolveStart(const CommandContext& context, const std::string& text);

// Return all pages, those of nodes as one, up to `limit` nodes or sessions; 0 is no limit.
absl::StatusOr<client::ListNodesResponse> ListAllNodes(const CommandContext& context, client::ListNodesRequest request,
                                                       size_t limit);
absl::StatusOr<std::vector<client::Session>> ListAllSessions(const CommandContext& context, size_t limit);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_NAMES_H_
