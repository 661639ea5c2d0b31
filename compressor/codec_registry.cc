#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "compressor/codec.h"
#include "compressor/exact_codec.h"

namespace quicksave::compressor {
namespace {

bool ValidName(std::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_islower(static_cast<unsigned char>(c)) || absl::ascii_isdigit(static_cast<unsigned char>(c)) ||
           c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxCodecNameLength && std::all_of(name.begin(), name.end(), allowed);
}

}  // namespace

absl::Status CodecRegistry::Register(std::unique_ptr<const Codec> codec) {
  if (!ValidName(codec->name())) {
    return absl::InvalidArgumentError(absl::StrCat("'", std::string(codec->name()), "' cannot be a codec's name"));
  }
  absl::MutexLock lock(&mutex_);
  auto& same_name = codecs_[std::string(codec->name())];
  for (const auto& other : same_name) {
    if (other->profile_id() == codec->profile_id()) {
      return absl::AlreadyExistsError(absl::StrCat("codec '", std::string(codec->name()), "' with profile ",
                                                   codec->profile_id().ToHex(), " is registered"));
    }
  }
  same_name.push_back(std::move(codec));
  return absl::OkStatus();
}

absl::StatusOr<const Codec*> CodecRegistry::Find(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = codecs_.find(name);
  if (found == codecs_.end()) return absl::NotFoundError(absl::StrCat("no codec '", std::string(name), "'"));
  return found->second.back().get();
}

absl::StatusOr<const Codec*> CodecRegistry::Find(std::string_view name, const Digest128& profile_id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = codecs_.find(name);
  if (found == codecs_.end())
    return absl::UnimplementedError(absl::StrCat("no codec '", std::string(name), "' in this program"));
  for (const auto& codec : found->second) {
    if (codec->profile_id() == profile_id) return codec.get();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("codec '", std::string(name), "' needs profile ", profile_id.ToHex(), ", which is not loaded"));
}

std::vector<std::string> CodecRegistry::Names() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& entry : codecs_) names.push_back(entry.first);
  return names;
}

absl::Status RegisterBuiltinCodecs(CodecRegistry& registry) { return registry.Register(NewExactCodec(nullptr)); }

}  // namespace quicksave::compressor
