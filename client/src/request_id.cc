#include "client/src/request_id.h"

#include <cstdint>
#include <random>

#include "absl/strings/str_format.h"

namespace quicksave::client {

std::string MakeRequestId() {
  // The system's generator, not a seeded one: two clients, or two forks of one, may never draw the same id.
  std::random_device random;
  const auto draw = [&random] { return uint64_t{random()} << 32 | random(); };
  const uint64_t high = (draw() & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (draw() & ~(uint64_t{3} << 62)) | uint64_t{1} << 63;
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, high >> 16 & 0xffff, high & 0xffff, low >> 48,
                         low & 0xffff'ffff'ffff);
}

}  // namespace quicksave::client
