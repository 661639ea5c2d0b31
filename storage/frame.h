// The frame around stored values: one byte of version, eight bytes of checksum (XXH3-64 of the payload, seeded with the
// XXH3-64 of the key, little endian), the payload. The key is part of it so that a value that turns up under
// another key is noticed.
#ifndef QUICKSAVE_STORAGE_FRAME_H_
#define QUICKSAVE_STORAGE_FRAME_H_

#include <array>
#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::storage {

inline constexpr size_t kFrameHeaderBytes = 9;

// What to write in front of `payload` under `key`.
std::array<char, kFrameHeaderBytes> FrameHeader(absl::string_view key, absl::string_view payload);

// The payload within `framed`. DATA_LOSS, naming `what`: the frame is of an unknown version or the checksum is wrong.
absl::StatusOr<absl::string_view> OpenFrame(absl::string_view key, absl::string_view framed, absl::string_view what);

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_FRAME_H_
