// Little-endian fields of stored formats, written and read without surprises. The host is little endian (block.cc).

#ifndef QUICKSAVE_COMPRESSOR_BYTE_IO_H_
#define QUICKSAVE_COMPRESSOR_BYTE_IO_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace quicksave::compressor {

// Appends an integer in little endian.
template <typename T>
void AppendInteger(std::string& out, T value) {
  static_assert(std::is_unsigned_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Reads fields one after the other. Once a read went past the end, ok() is false and all reads give zeros.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  std::string_view rest() const { return rest_; }

  template <typename T>
  T Integer() {
    static_assert(std::is_unsigned_v<T>);
    T value = 0;
    const std::string_view bytes = Bytes(sizeof(T));
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  // The next `count` bytes, or nothing if there are fewer.
  std::string_view Bytes(size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

// Appends XXH3-64 of what `out` holds.
void AppendChecksum(std::string& out);
// Whether the last 8 bytes of `bytes` are XXH3-64 of the others.
bool ChecksumMatches(std::string_view bytes);
// XXH3-64.
uint64_t Checksum(std::string_view bytes);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_BYTE_IO_H_
