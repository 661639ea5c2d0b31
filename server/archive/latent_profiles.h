#ifndef QUICKSAVE_SERVER_ARCHIVE_LATENT_PROFILES_H_
#define QUICKSAVE_SERVER_ARCHIVE_LATENT_PROFILES_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "compressor/codec.h"
#include "compressor/latent/latent_profile.h"
#include "compressor/learned/profile_codecs.h"
#include "server/engine/page_pool.h"
#include "storage/store.h"

namespace quicksave::server {

// A profile of latents, calibrated or learned, and its codecs.
struct LatentProfileEntry {
  std::string id;  // 32 hexadecimal digits, as in storage::v1::Encoding
  int64_t size_bytes = 0;
  std::shared_ptr<const compressor::LatentProfile> profile;  // of a learned one its base
  const compressor::Codec* latent = nullptr;                 // `latent` or `learned`
  const compressor::Codec* residual = nullptr;               // null where there is none: learned latents
};

// The profiles of latents of one model that are kept in the store: what was encoded with one can be read as long as the
// store lives. Thread-safe.
class LatentProfiles {
 public:
  // `store` must outlive it.
  LatentProfiles(storage::Store* store, std::string model_fingerprint, const engine::KvShape& shape, int hidden_size)
      : store_(store), model_fingerprint_(std::move(model_fingerprint)), shape_(shape), hidden_size_(hidden_size) {}

  // Loads all profiles that the store has for the model. DATA_LOSS for a damaged one.
  absl::Status LoadStored();

  // Takes a profile's bytes, stores them and uses them from now on; a profile that is there already is fine. Returns
  // its id. FAILED_PRECONDITION for a profile of another model or shape, INVALID_ARGUMENT for bytes that are none,
  // UNIMPLEMENTED for a newer format; the store's errors.
  absl::StatusOr<std::string> Adopt(std::string_view bytes);

  // Null when there is none. Entries stay as long as this.
  const LatentProfileEntry* Find(std::string_view id) const;
  // The one that was stored last among those of a codec with this split; null when there is none.
  const LatentProfileEntry* ForSplit(std::string_view codec, int split) const;
  // In the order in which they were stored.
  std::vector<const LatentProfileEntry*> All() const;

 private:
  absl::Status Load(const std::string& id, std::string_view bytes);
  absl::Status CheckFits(const compressor::LatentProfile& profile) const;
  absl::Status Add(const std::string& id, std::string_view bytes, compressor::ProfileCodecs profile);

  storage::Store* const store_;
  const std::string model_fingerprint_;
  const engine::KvShape shape_;
  const int hidden_size_;
  compressor::CodecRegistry codecs_;
  mutable absl::Mutex mutex_;
  std::vector<std::unique_ptr<const LatentProfileEntry>> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_LATENT_PROFILES_H_
