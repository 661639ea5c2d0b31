// Codec profiles.
#ifndef QUICKSAVE_STORAGE_PROFILE_SHELF_H_
#define QUICKSAVE_STORAGE_PROFILE_SHELF_H_

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "storage/writer_state.h"

namespace quicksave::storage {

// As the methods of Store with these names.
absl::Status PutProfile(absl::string_view model_fingerprint, absl::string_view codec, const Profile& profile,
                        WriterState* state) ABSL_LOCKS_EXCLUDED(state->mutex);
absl::StatusOr<Profile> GetProfile(const Database& database, absl::string_view model_fingerprint,
                                   absl::string_view codec, absl::string_view id);
absl::StatusOr<std::vector<ProfileInfo>> ListProfiles(const Database& database, absl::string_view model_fingerprint);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_PROFILE_SHELF_H_
