// Each operation of the device under test gives the bits of the CPU's.
#include "server/engine/kernels/device.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_device.h"
#include "server/engine/testing/device_under_test.h"

namespace quicksave::engine {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Runs the same operations on both devices, with copies of the same operands.
class DeviceTest : public testing::Test {
 protected:
  DeviceTest() : seed_(std::random_device()()), random_(seed_) { std::cout << "seed " << seed_ << "\n"; }

  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Device>> device = MakeDeviceUnderTest();
    if (IsMissing(device.status())) GTEST_SKIP() << device.status().message();
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  std::vector<float> Random(size_t count, float deviation = 1) {
    std::normal_distribution<float> normal(0, deviation);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }
  std::vector<float> RandomBf16(size_t count) {
    std::vector<float> values = Random(count);
    cpu::RoundToBf16(values.data(), count);
    return values;
  }

  template <class Value>
  static DeviceBuffer<Value> Copy(Device& device, const std::vector<Value>& values) {
    DeviceBuffer<Value> buffer(values.size(), device.memory());
    std::copy(values.begin(), values.end(), buffer.data());
    return buffer;
  }

  // `compute` returns what it has filled, with operands in its device's memory.
  void ExpectSameBits(const std::function<DeviceBuffer<float>(Device&)>& compute) {
    const DeviceBuffer<float> expected = compute(cpu_);
    const DeviceBuffer<float> actual = compute(*device_);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(actual[i]), std::bit_cast<uint32_t>(expected[i]))
          << i << ": " << actual[i] << ", " << expected[i];
    }
  }

  // The same for an operation that changes `x`.
  void ExpectSameBitsInPlace(const std::vector<float>& x, const std::function<void(Device&, float*)>& compute) {
    ExpectSameBits([&](Device& device) {
      DeviceBuffer<float> y = Copy(device, x);
      compute(device, y.data());
      device.Wait();
      return y;
    });
  }

  // Products with the weights that `make` packs into a device's memory.
  void ExpectSameProduct(const std::vector<float>& x, int rows, int outputs,
                         const std::function<Matrix(DeviceMemory&)>& make) {
    ExpectSameBits([&](Device& device) {
      const Matrix w = make(device.memory());
      const DeviceBuffer<float> input = Copy(device, x);
      DeviceBuffer<float> y(size_t(rows) * outputs, device.memory());
      device.MatMul(input.data(), rows, w, y.data());
      device.Wait();
      return y;
    });
  }

  const unsigned seed_;
  std::mt19937 random_;
  const cpu::ScopedFlushDenormals flush_;
  ThreadPool threads_{2};
  CpuDevice cpu_{&threads_};
  std::unique_ptr<Device> device_;
};

TEST_F(DeviceTest, ProductsWithEachFormatOfWeights) {
  for (const int rows : {1, 3, 17}) {
    const int outputs = 1 + static_cast<int>(random_() % 100);
    const int inputs = 16 * (1 + static_cast<int>(random_() % 20));
    const int stride = (inputs + 31) / 32 * 32;
    SCOPED_TRACE(testing::Message() << "[" << rows << ", " << inputs << "] x " << outputs);
    std::vector<float> x = RandomBf16(size_t(rows) * stride);
    for (size_t i = 0; i < x.size(); ++i) {
      if (static_cast<int>(i) % stride >= inputs) x[i] = 0;
      // Some inputs stand out, and one is just below the step at which the next power of two begins.
      if (i % 50 == 7) x[i] *= 100;
      if (i == 0) x[i] = -0x1.fffffep3F;
      if (i == 1) x[i] = 0x1.fffffep3F;
    }
    const std::vector<float> weights = RandomBf16(size_t(outputs) * inputs);
    const auto set_all = [&](auto matrix) {
      for (int i = 0; i < outputs; ++i) matrix.SetOutput(i, weights.data() + size_t(i) * inputs);
      return Matrix(std::move(matrix));
    };
    ExpectSameProduct(x, rows, outputs,
                      [&](DeviceMemory& memory) { return set_all(cpu::Int8Matrix(outputs, inputs, memory)); });
    ExpectSameProduct(x, rows, outputs,
                      [&](DeviceMemory& memory) { return set_all(cpu::Fp32Matrix(outputs, inputs, memory)); });
    std::vector<uint16_t> bits;
    for (const float weight : weights) bits.push_back(cpu::Bf16Bits(weight));
    cpu::RoundToBf16(x.data(), x.size());
    ExpectSameProduct(x, rows, outputs,
                      [&](DeviceMemory& memory) { return cpu::PackedMatrix(bits.data(), outputs, inputs, memory); });
  }
}

TEST_F(DeviceTest, RmsNorm) {
  for (const int width : {32, 96, 576, 4096}) {
    const std::vector<float> x = Random(size_t{5} * width, 3);
    const std::vector<float> weight = Random(width);
    for (const auto rounding : {cpu::Rounding::kBf16, cpu::Rounding::kNone}) {
      ExpectSameBits([&](Device& device) {
        const DeviceBuffer<float> from = Copy(device, x);
        const DeviceBuffer<float> scale = Copy(device, weight);
        DeviceBuffer<float> y(x.size(), device.memory());
        device.RmsNorm(from.data(), scale.data(), 5, width, 1e-5F, y.data(), rounding);
        device.Wait();
        return y;
      });
    }
  }
}

TEST_F(DeviceTest, RmsNormInPlaceOfGroups) {
  const cpu::Groups groups{.rows = 7, .count = 3, .width = 48, .x_stride = 3 * 48 + 9};
  const std::vector<float> weight = Random(48);
  ExpectSameBitsInPlace(Random(size_t{7} * groups.x_stride, 3), [&](Device& device, float* x) {
    const DeviceBuffer<float> scale = Copy(device, weight);
    device.RmsNormInPlace(x, groups, scale.data(), 1e-6F);
    device.Wait();
  });
}

TEST_F(DeviceTest, Rope) {
  for (const int head_dim : {16, 48, 64, 256}) {
    const int stride = 3 * head_dim + 5;
    const std::vector<float> table = Random(size_t{100} * head_dim);
    ExpectSameBitsInPlace(Random(size_t{3} * stride), [&](Device& device, float* x) {
      const DeviceBuffer<float> cos_sin = Copy(device, table);
      const DeviceBuffer<int32_t> positions = Copy<int32_t>(device, {0, 7, 99});
      device.Rope(x, stride, 3, head_dim, {.rows = 3, .positions = positions.data()}, cos_sin.data());
      device.Wait();
    });
  }
}

TEST_F(DeviceTest, GatedActivations) {
  constexpr int kRows = 40;
  constexpr int kWidth = 512;
  std::vector<float> gate_up = Random(size_t{2} * kRows * kWidth, 6);
  const float extremes[] = {-20, -87.5F, -104, -178, -1e30F, 90, 200, 1e30F, 0, -0.0F, 1e-38F, 1e-42F};
  std::copy(std::begin(extremes), std::end(extremes), gate_up.begin());
  for (const auto glu : {&Device::SwiGlu, &Device::GeGlu}) {
    for (const auto rounding : {cpu::Rounding::kBf16, cpu::Rounding::kNone}) {
      ExpectSameBits([&](Device& device) {
        const DeviceBuffer<float> from = Copy(device, gate_up);
        DeviceBuffer<float> y(gate_up.size() / 2, device.memory());
        (device.*glu)(from.data(), kRows, kWidth, y.data(), rounding);
        device.Wait();
        return y;
      });
    }
  }
}

TEST_F(DeviceTest, SoftCap) {
  std::vector<float> values = Random(100001, 40);
  const float extremes[] = {0, -0.0F, 1e-6F, 1e-42F, 30, -30, 561.4F, 561.5F, 1e30F, -1e30F};
  std::copy(std::begin(extremes), std::end(extremes), values.begin());
  ExpectSameBitsInPlace(values, [&](Device& device, float* x) { device.SoftCap(x, values.size(), 30); });
}

TEST_F(DeviceTest, SumsAndBiases) {
  const std::vector<float> other = Random(size_t{33} * 37);
  ExpectSameBitsInPlace(Random(other.size()), [&](Device& device, float* x) {
    const DeviceBuffer<float> y = Copy(device, other);
    device.Add(x, y.data(), 33, 37);
    device.AddBias(x, y.data(), 33, 37);
    device.Wait();
  });
}

TEST_F(DeviceTest, DenormalsAreFlushed) {
  // 1e-38 is below the smallest normal number, 1.18e-38; so is the difference of the last two.
  const std::vector<float> y = {1e-38F, -1e-38F, 1e-38F, -1.2e-38F};
  ExpectSameBitsInPlace({0, 0, 1.2e-38F, 1.3e-38F}, [&](Device& device, float* x) {
    const DeviceBuffer<float> other = Copy(device, y);
    device.Add(x, other.data(), 1, 4);
    device.Wait();
    // Not by comparing floats, which takes denormals for 0 here.
    uint32_t bits[4];
    std::memcpy(bits, x, sizeof(bits));
    for (const int i : {0, 1, 3}) EXPECT_EQ(bits[i], 0) << i;
    EXPECT_NE(bits[2], 0);
  });
}

TEST_F(DeviceTest, GatherTakesRowsInOrder) {
  const std::vector<float> x = Random(size_t{6} * 32);
  ExpectSameBits([&](Device& device) {
    const DeviceBuffer<float> from = Copy(device, x);
    const DeviceBuffer<int32_t> rows = Copy<int32_t>(device, {1, 4, 5});
    DeviceBuffer<float> y(size_t{3} * 32, device.memory());
    device.Gather(from.data(), rows.data(), 3, 32, y.data());
    device.Wait();
    return y;
  });
}

// Several sequences in pages at scattered places, everything else in them NaN.
class AttentionDeviceTest : public DeviceTest {
 protected:
  struct Text {
    int first_position;
    int rows;
  };

  // Stores keys and values of all earlier tokens, then those of the rows, and attends.
  DeviceBuffer<float> Attend(Device& device, const cpu::HeadShape& shape, const std::vector<Text>& texts,
                             const cpu::AttentionOptions& options, const std::vector<float>& values) {
    const size_t half = size_t(shape.kv_heads) * shape.head_dim * cpu::kPageTokens * sizeof(uint16_t);
    const LayerOffsets offsets{64, 64 + half};
    std::vector<DeviceBuffer<std::byte>> memory;
    std::vector<std::vector<std::byte*>> pages;
    for (const Text& text : texts) {
      pages.emplace_back();
      for (int i = 0; i <= (text.first_position + text.rows - 1) / cpu::kPageTokens; ++i) {
        memory.emplace_back(64 + 2 * half, device.memory());
        std::memset(memory.back().data(), 0xff, memory.back().size());
        pages.back().push_back(memory.back().data());
      }
    }
    const int width = (shape.query_heads + 2 * shape.kv_heads) * shape.head_dim;
    const int key_column = shape.query_heads * shape.head_dim;
    DeviceBuffer<float> out;
    for (const bool earlier : {true, false}) {
      std::vector<int32_t> positions;
      std::vector<std::byte*> table;
      std::vector<size_t> tables;  // of each row, in the table
      int longest = 0;
      for (size_t t = 0; t < texts.size(); ++t) {
        const int begin = earlier ? 0 : texts[t].first_position;
        const int end = earlier ? texts[t].first_position : begin + texts[t].rows;
        for (int position = begin; position < end; ++position) {
          positions.push_back(position);
          tables.push_back(table.size());
        }
        table.insert(table.end(), pages[t].begin(), pages[t].end());
        longest = std::max(longest, end);
      }
      const DeviceBuffer<int32_t> row_positions = Copy(device, positions);
      const DeviceBuffer<std::byte*> page_table = Copy(device, table);
      DeviceBuffer<std::byte* const*> row_pages(positions.size(), device.memory());
      for (size_t i = 0; i < tables.size(); ++i) row_pages[i] = page_table.data() + tables[i];
      const Batch batch{static_cast<int>(positions.size()), longest, row_positions.data(), row_pages.data()};
      std::vector<float> some(size_t(batch.rows) * width);
      for (size_t i = 0; i < some.size(); ++i) some[i] = values[(i * 7 + (earlier ? 0 : 1)) % values.size()];
      const DeviceBuffer<float> rows = Copy(device, some);
      out = Copy(device, std::vector<float>(size_t(batch.rows) * (key_column + 3), kNan));
      device.StoreKeyValues(rows.data() + key_column, width, batch, shape, offsets);
      if (!earlier) device.Attention(rows.data(), width, batch, shape, offsets, options, out.data(), key_column + 3);
      device.Wait();
    }
    return out;
  }
};

TEST_F(AttentionDeviceTest, AttentionOfShapesWindowsAndCaps) {
  const std::vector<float> values = Random(10007, 2);
  const std::vector<Text> texts = {{0, 1}, {15, 2}, {100, 33}, {0, 17}, {333, 1}};
  for (const cpu::HeadShape& shape : {cpu::HeadShape{1, 1, 16}, {9, 3, 64}, {5, 1, 48}, {4, 4, 96}, {2, 1, 256}}) {
    for (const int window : {0, 1, 20, 64, 1000}) {
      for (const float cap : {0.0F, 3.0F}) {
        SCOPED_TRACE(testing::Message() << shape.query_heads << "/" << shape.kv_heads << " heads of " << shape.head_dim
                                        << ", window " << window << ", cap " << cap);
        const cpu::AttentionOptions options{.scale = 0.125F, .window = window, .soft_cap = cap};
        ExpectSameBits([&](Device& device) { return Attend(device, shape, texts, options, values); });
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_F(AttentionDeviceTest, AttentionOfManyRowsOfALongContext) {
  const std::vector<float> values = Random(100003, 2);
  const cpu::AttentionOptions options{.scale = 0.1F, .rounding = cpu::Rounding::kNone};
  // More scores than are held at once.
  ExpectSameBits([&](Device& device) { return Attend(device, {32, 8, 16}, {{2900, 300}, {7, 5}}, options, values); });
}

}  // namespace
}  // namespace quicksave::engine
