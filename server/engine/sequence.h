#ifndef QUICKSAVE_SERVER_ENGINE_SEQUENCE_H_
#define QUICKSAVE_SERVER_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "server/engine/page_pool.h"

namespace quicksave::engine {

// Logits of the whole vocabulary, fp32.
using Logits = std::vector<float>;

// A decoding state: token ids, the KV pages that cover all of them, and the logits for the token after the last one.
//
// Copying is O(1) and shares everything; the first change to a copy clones its tables (not the pages), and the first
// token that goes to a shared page copies that one page. So a branch costs nothing, whatever its length. A Sequence
// belongs to one thread at a time; copies of it may be used by others.
class Sequence {
 public:
  Sequence() : body_(std::make_shared<Body>()) {}
  // A state made elsewhere; `pages` covers all `tokens`.
  Sequence(std::vector<int32_t> tokens, std::vector<PageRef> pages, std::shared_ptr<const Logits> next_logits);

  int length() const { return static_cast<int>(body_->tokens.size()); }
  const std::vector<int32_t>& tokens() const { return body_->tokens; }
  const std::vector<PageRef>& pages() const { return body_->pages; }
  // Logits of the token after the last; null when they have not been computed, as after Truncate or before the first
  // token.
  const std::shared_ptr<const Logits>& next_logits() const { return next_logits_; }
  void set_next_logits(std::shared_ptr<const Logits> logits) { next_logits_ = std::move(logits); }

  // The first tokens of whose K and V some were decoded from a lossy encoding; 0 in most states. Those of the tokens
  // after them are what the model computes from there, so such a state is no pure function of its token ids.
  int lossy_tokens() const { return lossy_tokens_; }
  void set_lossy_tokens(int tokens) { lossy_tokens_ = tokens; }

  // Pages that must be reserved so that `count` more tokens can be appended, in any number of steps, whether the last
  // page is shared by the first of them or not.
  int PagesToAppend(int count) const;
  // Pages that Append takes if it is called now, for `count` tokens.
  int PagesToAppendNow(int count) const;

  // Appends tokens and makes the pages of their slots writable, taking new ones from the reservation. Their K and V are
  // undefined until a forward pass has written them. Drops next_logits.
  void Append(absl::Span<const int32_t> tokens, PageReservation& reservation);

  // Makes the sequence empty. Its pages that nobody else refers to become promised to the reservation.
  void Release(PageReservation& reservation);

  // Keeps the first `length` tokens. Drops next_logits when that is fewer than there were.
  void Truncate(int length);

 private:
  struct Body {
    std::vector<int32_t> tokens;
    std::vector<PageRef> pages;
  };
  Body& Mutable();

  std::shared_ptr<Body> body_;
  std::shared_ptr<const Logits> next_logits_;
  int lossy_tokens_ = 0;
};

// Whether K and V of the token at `position` have the same bits in two sequences, in every layer. Both have that token,
// and their pages are of one pool.
bool SameKeyValues(const Sequence& a, const Sequence& b, int position);

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_SEQUENCE_H_
