#include "storage/profile_shelf.h"

#include <functional>
#include <map>
#include <optional>
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

// Puts the profile; false if somebody else put one of the same name meanwhile. Reads and copies without the lock: it
// may be big, and what is stored never changes.
absl::StatusOr<bool> TryPut(absl::string_view model_fingerprint, absl::string_view codec, const Profile& profile,
                            absl::string_view what, WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex) {
  const std::string key = ProfileKey(model_fingerprint, codec, profile.id);
  const absl::StatusOr<std::string> stored = state->database->Get(Family::kProfiles, key, what);
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  if (stored.ok() && *stored != profile.bytes) {
    return absl::AlreadyExistsError(absl::StrCat(what, " exists with other bytes; give the new one an id of its own"));
  }
  Batch batch(state->database);
  if (!stored.ok()) batch.Put(Family::kProfiles, key, profile.bytes);
  batch.Put(Family::kProfiles, CurrentProfileKey(model_fingerprint, codec), profile.id);
  const std::string entry_key = ProfileEntryKey(model_fingerprint, codec, profile.id);
  absl::MutexLock lock(&state->mutex);
  if (absl::Status begun = state->Begin(); !begun.ok()) return begun;
  const absl::StatusOr<bool> known = state->database->Has(Family::kProfiles, entry_key);
  if (!known.ok()) return known.status();
  if (!stored.ok() && *known) return false;
  if (!*known) {
    v1::ProfileEntry entry;
    entry.set_size_bytes(profile.bytes.size());
    entry.set_create_time_us(stored.ok() ? 0 : state->NextTimeUs());
    batch.PutMessage(Family::kProfiles, entry_key, entry);
  }
  absl::Status written = state->database->Write(&batch, Database::Room::kNeeds);
  if (!written.ok()) return written;
  return true;
}

// Profiles by what follows the prefix of their keys.
using ProfileMap = std::map<std::string, ProfileInfo, std::less<>>;

// Adds the profiles that have an entry.
absl::Status AddEntries(const Database& database, absl::string_view model_fingerprint, const Snapshot* snapshot,
                        ProfileMap* profiles) {
  const auto scan = database.NewScan(Family::kProfiles, ProfileEntriesPrefix(model_fingerprint), snapshot);
  for (; scan->Valid(); scan->Next()) {
    const std::string what = absl::StrCat("entry of a profile for model ", model_fingerprint);
    const absl::StatusOr<absl::string_view> payload = scan->value(what);
    if (!payload.ok()) return payload.status();
    v1::ProfileEntry entry;
    if (!entry.ParseFromArray(payload->data(), static_cast<int>(payload->size()))) {
      return absl::DataLossError(absl::StrCat(what, ": the stored bytes are none"));
    }
    ProfileInfo& profile = (*profiles)[std::string(scan->suffix())];
    profile.size_bytes = entry.size_bytes();
    if (entry.create_time_us() != 0) profile.create_time = absl::FromUnixMicros(entry.create_time_us());
  }
  return scan->status();
}

// Adds the profiles between two keys, none of which has an entry.
absl::Status AddWithoutEntry(const Database& database, absl::string_view prefix, absl::string_view begin,
                             absl::string_view end, const Snapshot* snapshot, ProfileMap* profiles) {
  const auto scan = database.NewScanBetween(Family::kProfiles, prefix, begin, end, snapshot);
  for (; scan->Valid(); scan->Next()) {
    const absl::StatusOr<absl::string_view> bytes = scan->value("a profile");
    if (!bytes.ok()) return bytes.status();
    (*profiles)[std::string(scan->suffix())].size_bytes = bytes->size();
  }
  return scan->status();
}

// Adds the profiles that a program before format 2 put, without reading the others.
absl::Status AddOldProfiles(const Database& database, absl::string_view model_fingerprint, const Snapshot* snapshot,
                            ProfileMap* profiles) {
  const std::string prefix = ProfilesPrefix(model_fingerprint);
  std::string begin = prefix;
  ProfileMap old;
  for (const auto& [suffix, profile] : *profiles) {
    const std::string end = absl::StrCat(prefix, suffix);
    if (absl::Status added = AddWithoutEntry(database, prefix, begin, end, snapshot, &old); !added.ok()) return added;
    begin = end + std::string(1, '\0');
  }
  absl::Status added = AddWithoutEntry(database, prefix, begin, PrefixEnd(prefix), snapshot, &old);
  if (!added.ok()) return added;
  profiles->merge(old);
  return absl::OkStatus();
}

// The id of the codec's current profile; empty if it has none.
absl::StatusOr<std::string> CurrentId(const Database& database, absl::string_view model_fingerprint,
                                      absl::string_view codec, const Snapshot* snapshot) {
  absl::StatusOr<std::string> current = database.Get(Family::kProfiles, CurrentProfileKey(model_fingerprint, codec),
                                                     NameOf(model_fingerprint, codec, ""), snapshot);
  if (absl::IsNotFound(current.status())) return "";
  return current;
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
  for (;;) {
    const absl::StatusOr<bool> put = TryPut(model_fingerprint, codec, profile, what, state);
    if (!put.ok()) return put.status();
    if (*put) return absl::OkStatus();
  }
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

absl::StatusOr<std::vector<ProfileInfo>> ListProfiles(const Database& database, absl::string_view model_fingerprint) {
  absl::Status valid = ValidateIdentifier("model fingerprint", model_fingerprint);
  if (!valid.ok()) return valid;
  const auto snapshot = database.NewSnapshot();
  ProfileMap profiles;
  absl::Status found = AddEntries(database, model_fingerprint, snapshot.get(), &profiles);
  if (found.ok()) found = AddOldProfiles(database, model_fingerprint, snapshot.get(), &profiles);
  if (!found.ok()) return found;
  std::vector<ProfileInfo> list;
  std::string current;
  for (auto& [suffix, profile] : profiles) {
    absl::string_view id = suffix;
    const std::optional<std::string> codec = ConsumeEscaped(&id);
    if (!codec) return absl::DataLossError(absl::StrCat("a profile for model ", model_fingerprint, " has no name"));
    if (list.empty() || list.back().codec != *codec) {
      absl::StatusOr<std::string> read = CurrentId(database, model_fingerprint, *codec, snapshot.get());
      if (!read.ok()) return read.status();
      current = *std::move(read);
    }
    profile.codec = *codec;
    profile.id = std::string(id);
    profile.current = id == current;
    list.push_back(std::move(profile));
  }
  return list;
}

}  // namespace quicksave::storage
