#include "storage/profile_shelf.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/keys.h"
#include "storage/validation.h"

namespace quicksave::storage {
namespace {

std::string NameOf(absl::string_view model_fingerprint, absl::string_view codec, absl::string_view id) {
  return absl::StrCat("profile ", id.empty() ? "(current)" : id, " of codec ", codec, " for model ", model_fingerprint);
}

absl::Status Validate(absl::string_view model_fingerprint, absl::string_view codec) {
  absl::Status status = ValidateIdentifier("model fingerprint", model_fingerprint);
  return status.ok() ? ValidateIdentifier("codec", codec) : status;
}

}  // namespace

absl::Status PutProfile(absl::string_view model_fingerprint, absl::string_view codec, const Profile& profile,
                        WriterState* state) {
  if (absl::Status status = Validate(model_fingerprint, codec); !status.ok()) return status;
  if (absl::Status status = ValidateName("profile id", profile.id); !status.ok()) return status;
  const std::string what = NameOf(model_fingerprint, codec, profile.id);
  if (profile.bytes.size() > kMaxValueBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has ", profile.bytes.size(), " bytes, the limit is ", kMaxValueBytes));
  }
  const std::string key = ProfileKey(model_fingerprint, codec, profile.id);
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  absl::StatusOr<std::string> stored = state->database->Get(Family::kProfiles, key, what);
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  if (stored.ok() && *stored != profile.bytes) {
    return absl::AlreadyExistsError(absl::StrCat(what, " exists with other bytes; give the new one an id of its own"));
  }
  Batch batch(state->database);
  if (!stored.ok()) batch.Put(Family::kProfiles, key, profile.bytes);
  batch.Put(Family::kProfiles, CurrentProfileKey(model_fingerprint, codec), profile.id);
  return state->database->Write(&batch, Database::Room::kNeeds);
}

absl::StatusOr<Profile> GetProfile(const Database& database, absl::string_view model_fingerprint,
                                   absl::string_view codec, absl::string_view id) {
  if (absl::Status status = Validate(model_fingerprint, codec); !status.ok()) return status;
  const std::string what = NameOf(model_fingerprint, codec, id);
  Profile profile{std::string(id), ""};
  if (id.empty()) {
    absl::StatusOr<std::string> current =
        database.Get(Family::kProfiles, CurrentProfileKey(model_fingerprint, codec), what);
    if (!current.ok()) return current.status();
    profile.id = *std::move(current);
  }
  absl::StatusOr<std::string> bytes =
      database.Get(Family::kProfiles, ProfileKey(model_fingerprint, codec, profile.id), what);
  if (absl::IsNotFound(bytes.status()) && id.empty()) return absl::DataLossError(absl::StrCat(what, ": missing"));
  if (!bytes.ok()) return bytes.status();
  profile.bytes = *std::move(bytes);
  return profile;
}

}  // namespace quicksave::storage
