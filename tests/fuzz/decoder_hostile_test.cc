// Every decoder over its corpus and some thousand mutations of it: what scripts/fuzz.sh does for longer and with
// guidance, in every run of the tests. A decoder may refuse, and does nothing else: it does not crash, contradict
// itself or ask for more memory than its input can account for.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "compressor/test_blocks.h"
#include "tests/fuzz/decoder_targets.h"
#include "tests/fuzz/watched_allocations.h"

namespace quicksave::fuzz {
namespace {

constexpr int kMutations = 3000;
// Inputs are below 100 KB, blocks below 32 KB; a profile in JSON takes some times its bytes.
constexpr size_t kLargestAllocation = 8 << 20;

std::vector<std::string> Corpus(const std::string& target) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(QUICKSAVE_FUZZ_CORPUS + ("/" + target))) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const std::filesystem::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// A few changes of the kinds that break decoders: of bits, bytes and numbers, cuts, and parts of another input.
std::string Mutate(std::string input, const std::string& other, compressor::TestRandom& random) {
  constexpr uint32_t kNumbers[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
  for (uint64_t n = 1 + random.Below(4); n > 0 && !input.empty(); --n) {
    // Headers are at the front, and short.
    const size_t place = random.Below(random.Below(2) == 0 ? input.size() : std::min<size_t>(input.size(), 256));
    switch (random.Below(6)) {
      case 0:
        input[place] = static_cast<char>(input[place] ^ (1 << random.Below(8)));
        break;
      case 1:
        input[place] = static_cast<char>(random.Next());
        break;
      case 2: {
        const uint32_t number = kNumbers[random.Below(std::size(kNumbers))];
        for (size_t i = 0; i < 4 && place + i < input.size(); ++i) {
          input[place + i] = static_cast<char>(number >> (8 * i));
        }
        break;
      }
      case 3:
        input.resize(place);
        break;
      case 4:
        input.erase(place, random.Below(8));
        break;
      default:
        input.insert(place, other, random.Below(other.size() + 1), random.Below(64));
    }
  }
  return input;
}

class DecoderHostileTest : public testing::TestWithParam<DecoderTarget> {};

INSTANTIATE_TEST_SUITE_P(Targets, DecoderHostileTest, testing::ValuesIn(DecoderTargets()),
                         [](const auto& target) { return std::string(target.param.name); });

// Otherwise nothing but the first checks would be tested.
TEST_P(DecoderHostileTest, AcceptsASeed) {
  const std::vector<std::string> seeds = GetParam().seeds();
  EXPECT_TRUE(std::any_of(seeds.begin(), seeds.end(), GetParam().decode));
}

TEST_P(DecoderHostileTest, SurvivesItsCorpusAndMutationsOfIt) {
  const DecoderTarget& target = GetParam();
  std::vector<std::string> corpus = Corpus(target.name);
  for (const std::string& seed : target.seeds()) corpus.push_back(seed);
  corpus.emplace_back();
  TakeLargestAllocation();
  for (const std::string& input : corpus) target.decode(input);
  compressor::TestRandom random(20261122);
  for (int i = 0; i < kMutations; ++i) {
    const std::string& input = corpus[random.Below(corpus.size())];
    target.decode(Mutate(input, corpus[random.Below(corpus.size())], random));
  }
  const size_t largest = TakeLargestAllocation();
  EXPECT_LE(largest, kLargestAllocation);
  EXPECT_GT(largest, 0U) << "the allocations are not watched";
}

}  // namespace
}  // namespace quicksave::fuzz
