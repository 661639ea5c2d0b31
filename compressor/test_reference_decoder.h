// A decoder of `exact` containers written from docs/formats/block_container.md alone, for tests: slow, and it shares no
// code with the one that is tested, but for the hash function.

#ifndef QUICKSAVE_COMPRESSOR_TEST_REFERENCE_DECODER_H_
#define QUICKSAVE_COMPRESSOR_TEST_REFERENCE_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace quicksave::compressor {

struct ReferenceBlock {
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t tokens = 0;
  std::string id_hex;
  std::vector<uint16_t> values;
  // The modes of the sections.
  std::vector<int> modes;
};

// Decodes a valid container; throws std::runtime_error or std::out_of_range for others. `profile` holds a serialized
// profile or nothing.
ReferenceBlock ReferenceDecode(const std::string& container, const std::string& profile);

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_TEST_REFERENCE_DECODER_H_
