#include "server/engine/model/device_check.h"

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/kernels/cpu_device.h"
#include "server/engine/testing/tiny_model.h"

namespace quicksave::engine {
namespace {

// Adds in another order than the others.
class OtherOrderDevice : public CpuDevice {
 public:
  explicit OtherOrderDevice(ThreadPool* threads) : CpuDevice(threads) {}
  std::string name() const override { return "test device"; }
  void Add(float* x, const float* y, int rows, int width) override {
    for (int i = 0; i < rows * width; ++i) x[i] = (x[i] + y[i] / 2) + y[i] / 2;
  }
};

TEST(CheckDeviceTest, RefusesADeviceWithOtherBits) {
  const TinyModel model({});
  ThreadPool threads(1);
  const auto decoder =
      Decoder::Load(model.dir(), std::make_unique<OtherOrderDevice>(&threads), &threads, WeightFormat::kBf16);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  const absl::Status status = CheckDevice(**decoder, &threads);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), testing::StartsWith("test device does not compute the bits"));
  EXPECT_EQ((*decoder)->device().name(), "test device");
}

TEST(CheckDeviceTest, TakesTheCpu) {
  const TinyModel model({.context_length = 20});
  ThreadPool threads(2);
  const auto decoder = Decoder::Load(model.dir(), &threads);
  ASSERT_TRUE(decoder.ok()) << decoder.status();
  EXPECT_EQ(CheckDevice(**decoder, &threads), absl::OkStatus());
}

}  // namespace
}  // namespace quicksave::engine
