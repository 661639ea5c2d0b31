#include "server/service/annotation_update.h"

#include <cmath>
#include <set>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "storage/validation.h"

namespace quicksave::server {
namespace {

constexpr int kMaxPaths = 256;

// Makes the entry of `key` in `to` what it is in `from`.
template <class Map>
void CopyEntry(const Map& from, const std::string& key, Map& to) {
  const auto entry = from.find(key);
  if (entry == from.end()) {
    to.erase(key);
  } else {
    to[key] = entry->second;
  }
}

absl::Status UpdatePath(absl::string_view path, const v1::Node& node, storage::NodeAnnotations& annotations) {
  absl::string_view key = path;
  if (path == "labels") {
    *annotations.mutable_labels() = node.labels();
  } else if (path == "rewards") {
    *annotations.mutable_rewards() = node.rewards();
  } else if (path == "note") {
    annotations.set_note(node.note());
  } else if (absl::ConsumePrefix(&key, "labels.") && !key.empty()) {
    CopyEntry(node.labels(), std::string(key), *annotations.mutable_labels());
  } else if (absl::ConsumePrefix(&key, "rewards.") && !key.empty()) {
    CopyEntry(node.rewards(), std::string(key), *annotations.mutable_rewards());
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("update_mask: '", absl::CEscape(path.substr(0, 80)),
                     "' cannot be changed; what can is labels, rewards, note, labels.KEY and rewards.KEY"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckUpdate(const v1::Node& node, const google::protobuf::FieldMask& mask) {
  if (mask.paths().empty()) {
    return absl::InvalidArgumentError("update_mask: is empty; say what to change: labels, rewards, note");
  }
  if (mask.paths_size() > kMaxPaths) {
    return absl::InvalidArgumentError(
        absl::StrCat("update_mask: has ", mask.paths_size(), " paths, the limit is ", kMaxPaths));
  }
  storage::NodeAnnotations given;
  // Each path once: the maps are as big as a message, until they are checked.
  for (const std::string& path : std::set<std::string>(mask.paths().begin(), mask.paths().end())) {
    if (absl::Status status = UpdatePath(path, node, given); !status.ok()) return status;
  }
  for (const auto& [name, value] : given.rewards()) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("rewards: '", absl::CEscape(name.substr(0, 80)), "' is not a finite number"));
    }
  }
  return storage::ValidateAnnotations(given);
}

absl::Status UpdateAnnotations(const v1::Node& node, const google::protobuf::FieldMask& mask,
                               storage::NodeAnnotations& annotations) {
  for (const std::string& path : mask.paths()) {
    if (absl::Status status = UpdatePath(path, node, annotations); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace quicksave::server
