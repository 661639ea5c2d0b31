#include "server/engine/sequence.h"

#include <cstring>
#include <utility>

namespace quicksave::engine {

Sequence::Sequence(std::vector<int32_t> tokens, std::vector<PageRef> pages, std::shared_ptr<const Logits> next_logits)
    : body_(std::make_shared<Body>(Body{std::move(tokens), std::move(pages)})), next_logits_(std::move(next_logits)) {}

int Sequence::PagesToAppend(int count) const {
  if (count == 0) return 0;
  const int shared_last = length() % cpu::kPageTokens != 0 ? 1 : 0;
  return PagesFor(length() + count) - PagesFor(length()) + shared_last;
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

void Sequence::Truncate(int length) {
  if (length >= this->length()) return;
  Body& body = Mutable();
  body.tokens.resize(length);
  body.pages.resize(PagesFor(length));
  next_logits_ = nullptr;
}

Sequence::Body& Sequence::Mutable() {
  if (body_.use_count() > 1) body_ = std::make_shared<Body>(*body_);
  return *body_;
}

}  // namespace quicksave::engine
