#include "tests/fuzz/sealed_input.h"

#include <cstdio>
#include <cstdlib>

#include "compressor/byte_io.h"

namespace quicksave::fuzz {
namespace {

constexpr size_t kHeaderSizeAt = 8;
constexpr size_t kProfileAt = 32;
constexpr size_t kFixedBytes = 96;
constexpr size_t kSectionBytes = 12;
constexpr size_t kChecksumBytes = 8;

void Overwrite(std::string& bytes, size_t at, std::string_view field) { bytes.replace(at, field.size(), field); }

}  // namespace

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void RequireDecoderStatus(const absl::Status& status) {
  const bool expected = status.ok() || absl::IsDataLoss(status) || absl::IsUnimplemented(status) ||
                        absl::IsFailedPrecondition(status) || absl::IsInvalidArgument(status);
  Require(expected, status.ToString().c_str());
}

std::string Sealed(std::string_view body) {
  std::string sealed(body);
  compressor::AppendChecksum(sealed);
  return sealed;
}

std::string Unsealed(const std::string& bytes) { return bytes.substr(0, bytes.size() - kChecksumBytes); }

std::string SealedContainer(std::string_view bytes, const compressor::Digest128& profile) {
  std::string sealed(bytes);
  if (bytes.size() < kFixedBytes + kChecksumBytes) return sealed;
  const auto header = compressor::ByteReader(bytes.substr(kHeaderSizeAt)).Integer<uint32_t>();
  if (header < kFixedBytes + kChecksumBytes || header > bytes.size()) return sealed;
  Overwrite(sealed, kProfileAt, profile.ToBytes());
  std::string_view rest = bytes.substr(header);
  for (size_t at = kFixedBytes; at + kSectionBytes + kChecksumBytes <= header; at += kSectionBytes) {
    const auto size = compressor::ByteReader(bytes.substr(at)).Integer<uint32_t>();
    if (size > rest.size()) break;
    std::string checksum;
    compressor::AppendInteger(checksum, compressor::Checksum(rest.substr(0, size)));
    Overwrite(sealed, at + sizeof(uint32_t), checksum);
    rest.remove_prefix(size);
  }
  std::string checksum;
  compressor::AppendInteger(checksum,
                            compressor::Checksum(std::string_view(sealed).substr(0, header - kChecksumBytes)));
  Overwrite(sealed, header - kChecksumBytes, checksum);
  return sealed;
}

}  // namespace quicksave::fuzz
