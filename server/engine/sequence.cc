#include "server/engine/sequence.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace quicksave::engine {
namespace {

// One layer's keys of one token: the slot is the fastest index.
bool SameKeys(const std::byte* a, const std::byte* b, int channels, int slot) {
  for (int channel = 0; channel < channels; ++channel) {
    const size_t offset = (size_t(channel) * cpu::kPageTokens + slot) * sizeof(uint16_t);
    if (std::memcmp(a + offset, b + offset, sizeof(uint16_t)) != 0) return false;
  }
  return true;
}

// One layer's values of one token: whole heads, the slots of a head side by side.
bool SameValues(const std::byte* a, const std::byte* b, const KvShape& shape, int slot) {
  const size_t head_bytes = size_t(shape.head_dim) * sizeof(uint16_t);
  for (int head = 0; head < shape.kv_heads; ++head) {
    const size_t offset = (size_t(head) * cpu::kPageTokens + slot) * head_bytes;
    if (std::memcmp(a + offset, b + offset, head_bytes) != 0) return false;
  }
  return true;
}

}  // namespace

Sequence::Sequence(std::vector<int32_t> tokens, std::vector<PageRef> pages, std::shared_ptr<const Logits> next_logits)
    : body_(std::make_shared<Body>(Body{std::move(tokens), std::move(pages)})), next_logits_(std::move(next_logits)) {}

int Sequence::PagesToAppend(int count) const {
  if (count == 0) return 0;
  const int copied = length() % cpu::kPageTokens != 0 ? 1 : 0;
  return PagesFor(length() + count) - PagesFor(length()) + copied;
}

int Sequence::PagesToAppendNow(int count) const {
  const bool last_is_ours = body_.use_count() == 1 && length() > 0 && body_->pages.back().unique();
  return PagesToAppend(count) - (count > 0 && length() % cpu::kPageTokens != 0 && last_is_ours ? 1 : 0);
}

void Sequence::Append(absl::Span<const int32_t> tokens, PageReservation& reservation) {
  if (tokens.empty()) return;
  Body& body = Mutable();
  if (length() % cpu::kPageTokens != 0 && !body.pages.back().unique()) {
    PageRef copy = reservation.Take();
    std::memcpy(copy.data(), body.pages.back().data(), copy.size());
    body.pages.back() = std::move(copy);
  }
  body.tokens.insert(body.tokens.end(), tokens.begin(), tokens.end());
  while (static_cast<int>(body.pages.size()) < PagesFor(length())) body.pages.push_back(reservation.Take());
  next_logits_ = nullptr;
}

void Sequence::Release(PageReservation& reservation) {
  const Sequence released = std::exchange(*this, Sequence());
  if (released.body_.use_count() > 1) return;
  for (PageRef& page : released.body_->pages) reservation.Return(std::move(page));
}

void Sequence::Truncate(int length) {
  if (length >= this->length()) return;
  Body& body = Mutable();
  body.tokens.resize(length);
  body.pages.resize(PagesFor(length));
  lossy_tokens_ = std::min(lossy_tokens_, length);
  next_logits_ = nullptr;
}

Sequence::Body& Sequence::Mutable() {
  if (body_.use_count() > 1) {
    body_ = std::make_shared<Body>(*body_);
  } else {
    // use_count is a relaxed read: what another thread did with a copy that it has dropped must come before what is
    // done now. Dropping a copy here reads the count with acquire (a fence would do as well, but not for tsan).
    std::shared_ptr<Body>(body_).reset();
  }
  return *body_;
}

bool SameKeyValues(const Sequence& a, const Sequence& b, int position) {
  const PageRef& page_a = a.pages()[position / cpu::kPageTokens];
  const PageRef& page_b = b.pages()[position / cpu::kPageTokens];
  if (page_a.data() == page_b.data()) return true;
  const KvShape& shape = page_a.shape();
  const int slot = position % cpu::kPageTokens;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const size_t keys = shape.key_offset(layer);
    const size_t values = shape.value_offset(layer);
    if (!SameKeys(page_a.data() + keys, page_b.data() + keys, shape.kv_heads * shape.head_dim, slot) ||
        !SameValues(page_a.data() + values, page_b.data() + values, shape, slot)) {
      return false;
    }
  }
  return true;
}

}  // namespace quicksave::engine
