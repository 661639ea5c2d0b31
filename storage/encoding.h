// Encodings of a node's K and V beside the one that was saved: what tells one from another, and what a record says of
// them.
#ifndef QUICKSAVE_STORAGE_ENCODING_H_
#define QUICKSAVE_STORAGE_ENCODING_H_

#include <cstdint>
#include <string>
#include <utility>

#include "quicksave/storage/v1/node.pb.h"

namespace quicksave::storage {

// Names an encoding within a node.
struct EncodingKey {
  std::string codec;
  std::string profile_id;
  uint32_t split = 0;
  float step = 0;

  friend bool operator==(const EncodingKey& a, const EncodingKey& b) = default;
  template <typename H>
  friend H AbslHashValue(H h, const EncodingKey& key) {
    return H::combine(std::move(h), key.codec, key.profile_id, key.split, key.step);
  }
};

// The key of a v1::Encoding or v1::EncodingSummary.
template <typename Message>
EncodingKey EncodingKeyOf(const Message& encoding) {
  return {encoding.codec(), encoding.profile_id(), encoding.split(), encoding.step()};
}

// "encoding latent (profile 1f, split 2, step 0.5)", as messages name it.
std::string EncodingName(const EncodingKey& key);

// Place of the encoding of that key in `contents.encodings`; -1 if there is none.
int FindEncoding(const EncodingKey& key, const v1::NodeContents& contents);

// Sets what a record without contents says of `contents`: `block_count`, `no_saved_blocks`, `encodings`.
void Summarize(const v1::NodeContents& contents, v1::NodeRecord* head);

// Do the blocks as saved, or some encoding, give the state of all tokens? Encodings were checked when they came.
bool CoversTokens(const v1::NodeContents& contents, uint32_t token_count);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_ENCODING_H_
