#include "server/archive/latent_profiles.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compressor/latent/latent_codec.h"
#include "compressor/learned/learned_codec.h"

namespace quicksave::server {

absl::Status LatentProfiles::LoadStored() {
  absl::StatusOr<std::vector<storage::ProfileInfo>> infos = store_->ListProfiles(model_fingerprint_);
  if (!infos.ok()) return infos.status();
  std::stable_sort(infos->begin(), infos->end(), [](const storage::ProfileInfo& a, const storage::ProfileInfo& b) {
    return a.create_time < b.create_time;
  });
  for (const storage::ProfileInfo& info : *infos) {
    if (info.codec != compressor::kLatentCodec && info.codec != compressor::kLearnedCodec) continue;
    const absl::StatusOr<storage::Profile> stored = store_->GetProfile(model_fingerprint_, info.codec, info.id);
    if (!stored.ok()) return stored.status();
    if (absl::Status status = Load(info.id, stored->bytes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status LatentProfiles::Load(const std::string& id, std::string_view bytes) {
  absl::StatusOr<compressor::ProfileCodecs> profile = compressor::ParseProfile(bytes);
  if (!profile.ok()) {
    return absl::Status(profile.status().code(),
                        absl::StrCat("latent profile ", id, " in the store: ", profile.status().message()));
  }
  return Add(id, bytes, *std::move(profile));
}

absl::StatusOr<std::string> LatentProfiles::Adopt(std::string_view bytes) {
  absl::StatusOr<compressor::ProfileCodecs> profile = compressor::ParseProfile(bytes);
  if (absl::IsDataLoss(profile.status())) return absl::InvalidArgumentError(profile.status().message());
  if (!profile.ok()) return profile.status();
  const std::string id = compressor::ComputeDigest(bytes).ToHex();
  if (Find(id) != nullptr) return id;
  if (absl::Status fits = CheckFits(*profile->profile); !fits.ok()) return fits;
  // Before anything is encoded with it, so that all that is encoded can be read after a restart.
  absl::Status stored = store_->PutProfile(model_fingerprint_, std::string(profile->latent->name()),
                                           {.id = id, .bytes = std::string(bytes)});
  if (!stored.ok()) return stored;
  if (absl::Status status = Add(id, bytes, *std::move(profile)); !status.ok()) return status;
  return id;
}

absl::Status LatentProfiles::CheckFits(const compressor::LatentProfile& profile) const {
  if (profile.model_fingerprint != model_fingerprint_) {
    return absl::FailedPreconditionError(absl::StrCat("the latent profile is for model ", profile.model_fingerprint,
                                                      ", this server runs ", model_fingerprint_,
                                                      "; calibrate one with quicksave-calibrate"));
  }
  if (profile.layers != shape_.layers || profile.kv_heads != shape_.kv_heads || profile.head_dim != shape_.head_dim ||
      (profile.features != 0 && profile.features != hidden_size_)) {
    return absl::FailedPreconditionError("the latent profile is for a state of another shape than the model's");
  }
  return absl::OkStatus();
}

absl::Status LatentProfiles::Add(const std::string& id, std::string_view bytes, compressor::ProfileCodecs profile) {
  if (absl::Status fits = CheckFits(*profile.profile); !fits.ok()) return fits;
  const absl::StatusOr<compressor::Digest128> digest = compressor::Digest128::FromHex(id);
  if (!digest.ok() || *digest != profile.latent->profile_id()) {
    return absl::DataLossError(absl::StrCat("the bytes of latent profile ", id, " are another's"));
  }
  auto entry = std::make_unique<LatentProfileEntry>();
  entry->id = id;
  entry->size_bytes = static_cast<int64_t>(bytes.size());
  entry->profile = profile.profile;
  absl::MutexLock lock(&mutex_);
  for (const auto& other : entries_) {
    if (other->id == id) return absl::OkStatus();
  }
  entry->latent = profile.latent.get();
  entry->residual = profile.residual.get();
  absl::Status status = codecs_.Register(std::move(profile.latent));
  if (entry->residual != nullptr) status.Update(codecs_.Register(std::move(profile.residual)));
  if (!status.ok()) return status;
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

const LatentProfileEntry* LatentProfiles::Find(std::string_view id) const {
  absl::MutexLock lock(&mutex_);
  for (const auto& entry : entries_) {
    if (entry->id == id) return entry.get();
  }
  return nullptr;
}

const LatentProfileEntry* LatentProfiles::ForSplit(std::string_view codec, int split) const {
  absl::MutexLock lock(&mutex_);
  const LatentProfileEntry* newest = nullptr;
  for (const auto& entry : entries_) {
    if (entry->latent->name() == codec && entry->profile->split == split) newest = entry.get();
  }
  return newest;
}

std::vector<const LatentProfileEntry*> LatentProfiles::All() const {
  absl::MutexLock lock(&mutex_);
  std::vector<const LatentProfileEntry*> all;
  for (const auto& entry : entries_) all.push_back(entry.get());
  return all;
}

}  // namespace quicksave::server
