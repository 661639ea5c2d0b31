#include "storage/node_listing.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "storage/frame.h"
#include "storage/keys.h"
#include "storage/node_reader.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

constexpr int kRecordsLookedAt = 10000;

// The index with the fewest nodes that can be told without counting.
std::string ChooseIndex(const ListRequest& request) {
  const NodeFilter& filter = request.filter;
  if (filter.parent) return ChildrenByTimePrefix(request.tenant, *filter.parent);
  if (!filter.labels.empty()) {
    return LabelPrefix(request.tenant, filter.labels.front().first, filter.labels.front().second);
  }
  if (filter.roots_only) return RootsPrefix(request.tenant);
  if (filter.model_fingerprint) return ModelPrefix(request.tenant, *filter.model_fingerprint);
  return AllNodesPrefix(request.tenant);
}

// Microseconds, rounded up, so that "from" and "before" mean the same instant.
int64_t ToMicros(absl::Time time) {
  if (time == absl::InfinitePast()) return std::numeric_limits<int64_t>::min();
  if (time == absl::InfiniteFuture()) return std::numeric_limits<int64_t>::max();
  const int64_t floor = absl::ToUnixMicros(time);
  return absl::FromUnixMicros(floor) < time ? floor + 1 : floor;
}

// Tells requests apart whose page tokens must not be mixed.
std::string RequestSignature(const ListRequest& request, absl::string_view index) {
  std::string text(index);
  const NodeFilter& filter = request.filter;
  AppendEscaped(&text, filter.model_fingerprint.value_or(""));
  AppendEscaped(&text, filter.parent.value_or(""));
  for (const auto& [key, value] : filter.labels) {
    AppendEscaped(&text, key);
    AppendEscaped(&text, value);
  }
  AppendTime(&text, ToMicros(filter.created_from));
  AppendTime(&text, ToMicros(filter.created_before));
  absl::StrAppend(&text, filter.roots_only ? 1 : 0, request.order == ListOrder::kNewestFirst ? 1 : 0);
  return text;
}

// A token is the place after which to go on, framed with the request's signature as key.
std::string MakeToken(absl::string_view signature, absl::string_view tail) {
  const auto header = FrameHeader(signature, tail);
  return absl::WebSafeBase64Escape(absl::StrCat(absl::string_view(header.data(), header.size()), tail));
}

absl::StatusOr<std::string> ReadToken(absl::string_view signature, absl::string_view token) {
  std::string framed;
  if (absl::WebSafeBase64Unescape(token, &framed)) {
    absl::StatusOr<absl::string_view> tail = OpenFrame(signature, framed, "page token");
    if (tail.ok() && tail->size() > kIndexTimeBytes) return std::string(*tail);
  }
  return absl::InvalidArgumentError("the page token is not one of this tenant, filter and order");
}

bool Matches(const NodeRecord& record, const NodeFilter& filter) {
  if (filter.model_fingerprint && record.model_fingerprint() != *filter.model_fingerprint) return false;
  if (filter.roots_only && !record.parents().empty()) return false;
  if (filter.parent && std::none_of(record.parents().begin(), record.parents().end(),
                                    [&](const ParentEdge& edge) { return edge.node_id() == *filter.parent; })) {
    return false;
  }
  const auto& labels = record.annotations().labels();
  return std::all_of(filter.labels.begin(), filter.labels.end(), [&](const auto& wanted) {
    auto found = labels.find(wanted.first);
    return found != labels.end() && found->second == wanted.second;
  });
}

absl::Status Validate(const ListRequest& request) {
  if (absl::Status status = ValidateIdentifier("tenant", request.tenant); !status.ok()) return status;
  if (request.page_size >= 1 && request.page_size <= kMaxPageSize) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("page size ", request.page_size, " must be 1 to ", kMaxPageSize));
}

// Goes through an index in one of the two orders.
class IndexCursor {
 public:
  IndexCursor(const Database& database, const ListRequest& request, absl::string_view prefix, const Snapshot* snapshot)
      : newest_first_(request.order == ListOrder::kNewestFirst),
        prefix_(prefix),
        scan_(database.NewScan(Family::kIndexes, prefix, snapshot)) {
    AppendTime(&from_, ToMicros(request.filter.created_from));
    AppendTime(&before_, ToMicros(request.filter.created_before));
  }

  void SeekToStart() {
    if (newest_first_) {
      scan_->SeekForPrev(absl::StrCat(prefix_, before_));
    } else {
      scan_->Seek(absl::StrCat(prefix_, from_));
    }
  }

  void SeekAfter(absl::string_view tail) {
    const std::string key = absl::StrCat(prefix_, tail);
    newest_first_ ? scan_->SeekForPrev(key) : scan_->Seek(key);
    if (scan_->Valid() && scan_->key() == key) Next();
  }

  bool Valid() const {
    return scan_->Valid() && (newest_first_ ? scan_->suffix() >= from_ : scan_->suffix() < before_);
  }
  void Next() { newest_first_ ? scan_->Prev() : scan_->Next(); }
  absl::string_view tail() const { return scan_->suffix(); }
  absl::Status status() const { return scan_->status(); }

 private:
  const bool newest_first_;
  const std::string prefix_;
  std::string from_, before_;
  const std::unique_ptr<Scan> scan_;
};

// Fills the page from where the cursor stands. `signature` goes into the token.
absl::StatusOr<NodePage> FillPage(const Database& database, const ListRequest& request, absl::string_view signature,
                                  const Snapshot* snapshot, IndexCursor* cursor) {
  NodePage page;
  std::string last;
  for (int looked_at = 0; cursor->Valid(); cursor->Next(), ++looked_at) {
    if (looked_at == kRecordsLookedAt || static_cast<int>(page.nodes.size()) == request.page_size) {
      page.next_page_token = MakeToken(signature, last);
      break;
    }
    last = std::string(cursor->tail());
    if (last.size() <= kIndexTimeBytes) return absl::DataLossError("indexes: a key has the wrong form");
    const std::string node_id = last.substr(kIndexTimeBytes);
    absl::StatusOr<NodeRecord> record = ReadHead(database, request.tenant, node_id, snapshot);
    // What is in the index and has no record is as bad as a damaged record. Neither hides the others.
    if (absl::IsDataLoss(record.status()) || absl::IsNotFound(record.status())) {
      page.unreadable.push_back(node_id);
      continue;
    }
    if (!record.ok()) return record.status();
    if (Matches(*record, request.filter)) page.nodes.push_back(*std::move(record));
  }
  if (!cursor->status().ok()) return cursor->status();
  return page;
}

}  // namespace

absl::StatusOr<NodePage> ListNodes(const Database& database, const ListRequest& given) {
  if (absl::Status valid = Validate(given); !valid.ok()) return valid;
  // Conditions have no order, but the index and the page token follow from it.
  ListRequest request = given;
  std::sort(request.filter.labels.begin(), request.filter.labels.end());
  const std::string index = ChooseIndex(request);
  const std::string signature = RequestSignature(request, index);
  const auto snapshot = database.NewSnapshot();
  IndexCursor cursor(database, request, index, snapshot.get());
  if (request.page_token.empty()) {
    cursor.SeekToStart();
  } else {
    absl::StatusOr<std::string> tail = ReadToken(signature, request.page_token);
    if (!tail.ok()) return tail.status();
    cursor.SeekAfter(*tail);
  }
  return FillPage(database, request, signature, snapshot.get(), &cursor);
}

}  // namespace quicksave::storage
