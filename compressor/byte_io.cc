#include "compressor/byte_io.h"

#include "compressor/xxh3.h"

namespace quicksave::compressor {

uint64_t Checksum(std::string_view bytes) { return Xxh3(bytes.data(), bytes.size()); }

void AppendChecksum(std::string& out) { AppendInteger(out, Checksum(out)); }

bool ChecksumMatches(std::string_view bytes) {
  if (bytes.size() < sizeof(uint64_t)) return false;
  const size_t body = bytes.size() - sizeof(uint64_t);
  return ByteReader(bytes.substr(body)).Integer<uint64_t>() == Checksum(bytes.substr(0, body));
}

}  // namespace quicksave::compressor
