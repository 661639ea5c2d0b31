#include "client/cli/names.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace quicksave::cli {
namespace {

constexpr size_t kShortestPrefix = 4;
constexpr size_t kNamedMatches = 5;
constexpr int32_t kLargestPage = 1000;

// Which kind of resource is looked for.
struct Kind {
  const char* word;
  const char* collection;
};
constexpr Kind kNode = {"node", "nodes/"};
constexpr Kind kSession = {"session", "sessions/"};

absl::Status NotFound(Kind kind, const std::string& id) {
  return absl::NotFoundError(absl::StrCat("no ", kind.word, " has the id '", id, "' or one that begins with it"));
}

// Returns the one name whose id begins with `id`.
absl::StatusOr<std::string> OneOf(Kind kind, const std::string& id, const std::vector<std::string>& names) {
  std::vector<std::string> matches;
  for (const std::string& name : names) {
    if (absl::StartsWith(absl::StripPrefix(name, kind.collection), id)) matches.push_back(name);
  }
  if (matches.size() == 1) return matches[0];
  if (matches.empty()) return NotFound(kind, id);
  const size_t shown = std::min(matches.size(), kNamedMatches);
  return absl::InvalidArgumentError(absl::StrCat("'", id, "' is the beginning of ", matches.size(), " ", kind.word,
                                                 "s: ", absl::StrJoin(matches.begin(), matches.begin() + shown, ", "),
                                                 shown < matches.size() ? ", ..." : ""));
}

// The size must be the same for all pages of a list.
int32_t PageSize(size_t limit) {
  return limit == 0 ? kLargestPage : static_cast<int32_t>(std::min<size_t>(limit, kLargestPage));
}

template <typename Resources>
std::vector<std::string> NamesOf(const Resources& resources) {
  std::vector<std::string> names;
  for (const auto& resource : resources) names.push_back(resource.name);
  return names;
}

// Resolves an id: `get` reads the resource of a full name, `list` returns all names.
template <typename Get, typename List>
absl::StatusOr<std::string> Resolve(Kind kind, Kind other, const std::string& text, const Get& get, const List& list) {
  if (absl::StartsWith(text, other.collection)) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' is a ", other.word, "; a ", kind.word, " is needed"));
  }
  const std::string id(absl::StripPrefix(text, kind.collection));
  if (id.empty()) return absl::InvalidArgumentError(absl::StrCat("the name of a ", kind.word, " is empty"));
  const std::string name = absl::StrCat(kind.collection, id);
  const absl::Status status = get(name);
  if (status.ok()) return name;
  // A server may refuse what is too short to be an id.
  if (!absl::IsNotFound(status) && !absl::IsInvalidArgument(status)) return status;
  if (id.size() < kShortestPrefix) {
    return absl::NotFoundError(absl::StrCat("no ", kind.word, " has the id '", id, "'; the beginning of an id must be ",
                                            kShortestPrefix, " characters or more"));
  }
  const absl::StatusOr<std::vector<std::string>> names = list();
  if (!names.ok()) return names.status();
  return OneOf(kind, id, *names);
}

}  // namespace

absl::StatusOr<std::string> ResolveNode(const CommandContext& context, const std::string& text) {
  return Resolve(
      kNode, kSession, text,
      [&context](const std::string& name) { return context.client.GetNode({.name = name}, context.Call()).status(); },
      [&context]() -> absl::StatusOr<std::vector<std::string>> {
        const auto all = ListAllNodes(context, {}, 0);
        if (!all.ok()) return all.status();
        std::vector<std::string> names = NamesOf(all->nodes);
        names.insert(names.end(), all->unreadable.begin(), all->unreadable.end());
        return names;
      });
}

absl::StatusOr<std::string> ResolveSession(const CommandContext& context, const std::string& text) {
  return Resolve(
      kSession, kNode, text,
      [&context](const std::string& name) {
        return context.client.GetSession({.name = name}, context.Call()).status();
      },
      [&context]() -> absl::StatusOr<std::vector<std::string>> {
        const auto sessions = ListAllSessions(context, 0);
        if (!sessions.ok()) return sessions.status();
        return NamesOf(*sessions);
      });
}

absl::StatusOr<client::Start> ResolveStart(const CommandContext& context, const std::string& text) {
  if (!absl::StartsWith(text, kSession.collection)) {
    const absl::StatusOr<std::string> node = ResolveNode(context, text);
    if (node.ok()) return client::FromNode{.name = *node};
    if (!absl::IsNotFound(node.status()) || absl::StartsWith(text, kNode.collection)) return node.status();
  }
  const absl::StatusOr<std::string> session = ResolveSession(context, text);
  if (session.ok()) return client::FromSession{.name = *session};
  if (!absl::IsNotFound(session.status()) || absl::StartsWith(text, kSession.collection)) return session.status();
  return absl::NotFoundError(absl::StrCat("no node or session has the id '", text, "' or one that begins with it"));
}

absl::StatusOr<client::ListNodesResponse> ListAllNodes(const CommandContext& context, client::ListNodesRequest request,
                                                       size_t limit) {
  client::ListNodesResponse all;
  request.page_size = PageSize(limit);
  do {
    absl::StatusOr<client::ListNodesResponse> page = context.client.ListNodes(request, context.Call());
    if (!page.ok()) return page.status();
    std::move(page->nodes.begin(), page->nodes.end(), std::back_inserter(all.nodes));
    std::move(page->unreadable.begin(), page->unreadable.end(), std::back_inserter(all.unreadable));
    request.page_token = page->next_page_token;
  } while (!request.page_token.empty() && (limit == 0 || all.nodes.size() < limit));
  if (limit != 0 && all.nodes.size() > limit) all.nodes.resize(limit);
  return all;
}

absl::StatusOr<std::vector<client::Session>> ListAllSessions(const CommandContext& context, size_t limit) {
  std::vector<client::Session> sessions;
  client::ListSessionsRequest request{.page_size = PageSize(limit)};
  do {
    absl::StatusOr<client::ListSessionsResponse> page = context.client.ListSessions(request, context.Call());
    if (!page.ok()) return page.status();
    std::move(page->sessions.begin(), page->sessions.end(), std::back_inserter(sessions));
    request.page_token = page->next_page_token;
  } while (!request.page_token.empty() && (limit == 0 || sessions.size() < limit));
  if (limit != 0 && sessions.size() > limit) sessions.resize(limit);
  return sessions;
}

}  // namespace quicksave::cli
