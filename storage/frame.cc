#include "storage/frame.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quicksave::storage {
namespace {

constexpr char kFrameVersion = 1;

}  // namespace

std::array<char, kFrameHeaderBytes> FrameHeader(absl::string_view key, absl::string_view payload) {
  const uint64_t seed = XXH3_64bits(key.data(), key.size());
  const uint64_t checksum = XXH3_64bits_withSeed(payload.data(), payload.size(), seed);
  std::array<char, kFrameHeaderBytes> header;
  header[0] = kFrameVersion;
  for (int i = 0; i < 8; ++i) header[1 + i] = static_cast<char>(checksum >> (8 * i));
  return header;
}

absl::StatusOr<absl::string_view> OpenFrame(absl::string_view key, absl::string_view framed, absl::string_view what) {
  if (framed.size() < kFrameHeaderBytes || framed[0] != kFrameVersion) {
    return absl::DataLossError(absl::StrCat(what, ": the stored value has no frame of version 1"));
  }
  const absl::string_view payload = framed.substr(kFrameHeaderBytes);
  if (std::memcmp(FrameHeader(key, payload).data(), framed.data(), kFrameHeaderBytes) != 0) {
    return absl::DataLossError(absl::StrCat(what, ": the stored bytes do not have their checksum"));
  }
  return payload;
}

}  // namespace quicksave::storage
