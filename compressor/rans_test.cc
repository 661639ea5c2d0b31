#include "compressor/rans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "compressor/rans_groups.h"
#include "compressor/test_blocks.h"

namespace quicksave::compressor {
namespace {

std::vector<TableFrequencies> Frequencies() {
  std::vector<TableFrequencies> tables;
  for (size_t i = 0; i < kMaxTables; ++i) tables.push_back(BuiltinTable(i));
  TableFrequencies& steep = tables[3];
  steep = {};
  steep[0] = kFrequencyTotal - 1;
  steep[kEscapeSymbol] = 1;
  TableFrequencies& flat = tables[5];
  flat.fill(kFrequencyTotal / kSymbols);
  return tables;
}

struct Sequence {
  std::vector<uint8_t> symbols;
  std::vector<uint8_t> tables;
};

// Symbols in the proportions of their tables, now and then a rare one.
Sequence DrawSymbols(const std::vector<TableFrequencies>& tables, size_t n, uint64_t seed) {
  TestRandom random(seed);
  Sequence sequence;
  for (size_t i = 0; i < n; ++i) {
    const size_t table = random.Below(tables.size());
    uint64_t slot = random.Below(kFrequencyTotal);
    int symbol = 0;
    while (slot >= tables[table][symbol]) slot -= tables[table][symbol++];
    sequence.symbols.push_back(static_cast<uint8_t>(random.Below(50) == 0 ? kEscapeSymbol : symbol));
    sequence.tables.push_back(static_cast<uint8_t>(table));
  }
  return sequence;
}

// The paths of this processor.
std::vector<CpuPath> Paths() {
  std::vector<CpuPath> paths;
  for (const CpuPath path : {CpuPath::kFastest, CpuPath::kPortable, CpuPath::kAvx2, CpuPath::kAvx512}) {
    if (HavePath(path)) paths.push_back(path);
  }
  return paths;
}

class RansTest : public testing::Test {
 protected:
  std::string Encode(const Sequence& sequence, CpuPath path = CpuPath::kFastest) {
    std::string bytes;
    RansEncode(sequence.symbols, sequence.tables, encode_, scratch_, bytes, path);
    return bytes;
  }

  const std::vector<TableFrequencies> frequencies_ = Frequencies();
  const std::vector<EncodeTable> encode_{frequencies_.begin(), frequencies_.end()};
  const std::vector<DecodeTable> decode_{frequencies_.begin(), frequencies_.end()};
  std::vector<uint16_t> scratch_;
};

TEST_F(RansTest, EveryPathMakesAndReadsTheSameBytes) {
  for (const size_t n : {0, 1, 31, 32, 33, 63, 64, 96, 1000, 4096, 100'001}) {
    const Sequence sequence = DrawSymbols(frequencies_, n, n);
    const std::string bytes = Encode(sequence);
    for (const CpuPath path : Paths()) {
      EXPECT_EQ(Encode(sequence, path), bytes) << n;
      std::vector<uint8_t> decoded(n);
      const absl::Status status = RansDecode(bytes, sequence.tables, decode_, absl::MakeSpan(decoded), path);
      EXPECT_TRUE(status.ok()) << status << " " << n;
      EXPECT_EQ(decoded, sequence.symbols) << n;
    }
  }
}

TEST_F(RansTest, EveryPathDecodesPairs) {
  for (const auto& [first_size, second_size] : {std::pair{5000, 5000}, {64, 5000}, {5000, 64}, {0, 1000}, {33, 1}}) {
    const Sequence first = DrawSymbols(frequencies_, static_cast<size_t>(first_size), 1);
    const Sequence second = DrawSymbols(frequencies_, static_cast<size_t>(second_size), 2);
    const std::string bytes[] = {Encode(first), Encode(second)};
    for (const CpuPath path : Paths()) {
      std::vector<uint8_t> decoded[] = {std::vector<uint8_t>(first.symbols.size()),
                                        std::vector<uint8_t>(second.symbols.size())};
      const absl::Status status = RansDecodePair({bytes[0], first.tables, absl::MakeSpan(decoded[0])},
                                                 {bytes[1], second.tables, absl::MakeSpan(decoded[1])}, decode_, path);
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_EQ(decoded[0], first.symbols);
      EXPECT_EQ(decoded[1], second.symbols);
    }
  }
}

TEST_F(RansTest, EveryPathAgreesOnDamage) {
  const Sequence sequence = DrawSymbols(frequencies_, 3000, 1);
  const std::string bytes = Encode(sequence);
  TestRandom random(2);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = bytes;
    damaged[random.Below(damaged.size())] = static_cast<char>(random.Next());
    if (i % 3 == 0) damaged.resize(random.Below(damaged.size()));
    // In memory of just this size, so that a sanitizer sees what is read beyond it.
    const std::vector<char> input(damaged.begin(), damaged.end());
    const std::string_view view(input.data(), input.size());
    std::vector<uint8_t> portable(3000);
    const auto portable_status =
        RansDecode(view, sequence.tables, decode_, absl::MakeSpan(portable), CpuPath::kPortable);
    for (const CpuPath path : Paths()) {
      std::vector<uint8_t> decoded(3000);
      EXPECT_EQ(RansDecode(view, sequence.tables, decode_, absl::MakeSpan(decoded), path), portable_status);
      EXPECT_EQ(decoded, portable);
      std::vector<uint8_t> other(3000);
      std::vector<uint8_t> paired(3000);
      const absl::Status status = RansDecodePair({bytes, sequence.tables, absl::MakeSpan(other)},
                                                 {view, sequence.tables, absl::MakeSpan(paired)}, decode_, path);
      EXPECT_EQ(status, portable_status);
      EXPECT_EQ(paired, portable);
    }
  }
}

TEST_F(RansTest, RefusesMissingAndSpareWords) {
  const Sequence sequence = DrawSymbols(frequencies_, 5000, 1);
  const std::string bytes = Encode(sequence);
  std::vector<uint8_t> decoded(5000);
  for (const std::string& other : {bytes.substr(0, bytes.size() - 2), bytes + std::string(2, '\0'), bytes + "x",
                                   bytes.substr(0, 10), std::string()}) {
    EXPECT_EQ(RansDecode(other, sequence.tables, decode_, absl::MakeSpan(decoded)).code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(RansTest, ComesNearTheEntropy) {
  TestRandom random(9);
  Sequence sequence;
  double bits = 0;
  for (int i = 0; i < 200'000; ++i) {
    uint64_t slot = random.Below(kFrequencyTotal);
    int symbol = 0;
    while (slot >= frequencies_[0][symbol]) slot -= frequencies_[0][symbol++];
    sequence.symbols.push_back(static_cast<uint8_t>(symbol));
    sequence.tables.push_back(0);
    bits += kFrequencyBits - std::log2(frequencies_[0][symbol]);
  }
  EXPECT_LT(static_cast<double>(Encode(sequence).size() - kStateBytes), bits / 8 * 1.001);
}

TEST(EntropyTableTest, BuiltinTablesAreValid) {
  for (size_t i = 0; i < kMaxTables; ++i) EXPECT_TRUE(ValidateFrequencies(BuiltinTable(i)).ok()) << i;
}

TEST(EntropyTableTest, QuantizedFrequenciesAreValid) {
  TestRandom random(3);
  for (int i = 0; i < 300; ++i) {
    std::vector<uint64_t> counts(kSymbols);
    for (uint64_t n = random.Below(300); n > 0; --n) counts[random.Below(kSymbols)] = random.Next() >> random.Below(64);
    EXPECT_TRUE(ValidateFrequencies(QuantizeFrequencies(counts)).ok()) << i;
  }
}

TEST(EntropyTableTest, ChannelModelsSurvivePacking) {
  for (uint32_t packed = 0; packed < 65536; ++packed) {
    EXPECT_EQ(ChannelModel::Unpack(static_cast<uint16_t>(packed)).Pack(), packed);
  }
}

}  // namespace
}  // namespace quicksave::compressor
