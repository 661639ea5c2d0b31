#include "storage/encoding.h"

#include "absl/strings/str_cat.h"

namespace quicksave::storage {
namespace {

v1::EncodingSummary SummaryOf(const v1::Encoding& encoding) {
  v1::EncodingSummary summary;
  summary.set_codec(encoding.codec());
  summary.set_profile_id(encoding.profile_id());
  summary.set_split(encoding.split());
  summary.set_step(encoding.step());
  summary.set_has_residual(!encoding.residuals().empty());
  summary.set_raw_bytes(encoding.raw_bytes());
  summary.set_stored_bytes(encoding.stored_bytes());
  summary.set_residual_bytes(encoding.residual_bytes());
  if (!encoding.has_fidelity()) return summary;
  summary.set_mean_kl(encoding.fidelity().mean_kl());
  summary.set_max_kl(encoding.fidelity().max_kl());
  summary.set_top1_agreement(encoding.fidelity().top1_agreement());
  return summary;
}

}  // namespace

std::string EncodingName(const EncodingKey& key) {
  const std::string profile = key.profile_id.empty() ? "" : absl::StrCat("profile ", key.profile_id, ", ");
  return absl::StrCat("encoding ", key.codec, " (", profile, "split ", key.split, ", step ", key.step, ")");
}

int FindEncoding(const EncodingKey& key, const v1::NodeContents& contents) {
  for (int i = 0; i < contents.encodings_size(); ++i) {
    if (EncodingKeyOf(contents.encodings(i)) == key) return i;
  }
  return -1;
}

void Summarize(const v1::NodeContents& contents, v1::NodeRecord* head) {
  head->set_block_count(contents.blocks_size());
  head->set_no_saved_blocks(contents.blocks().empty() && !contents.encodings().empty());
  head->clear_encodings();
  for (const v1::Encoding& encoding : contents.encodings()) *head->add_encodings() = SummaryOf(encoding);
}

bool CoversTokens(const v1::NodeContents& contents, uint32_t token_count) {
  if (!contents.encodings().empty()) return true;
  if (contents.blocks().empty()) return token_count == 0;
  const v1::BlockRef& last = *contents.blocks().rbegin();
  return uint64_t{last.first_token()} + last.token_count() == token_count;
}

}  // namespace quicksave::storage
