#include "server/engine/kernels/scalar/scalar_device.h"

#include <string>

#include "server/engine/kernels/scalar/functor_device.h"

namespace quicksave::engine {
namespace {

class ScalarDevice : public scalar::FunctorDevice<ScalarDevice> {
 public:
  ScalarDevice() : FunctorDevice(HostMemory()) {}

  std::string name() const override { return "cpu scalar"; }
  DeviceMemory& memory() override { return HostMemory(); }
  void Wait() override {}

  template <class Functor>
  void ForEach(int64_t count, const Functor& functor) {
    for (int64_t i = 0; i < count; ++i) functor(i);
  }
};

}  // namespace

std::unique_ptr<Device> MakeScalarDevice() { return std::make_unique<ScalarDevice>(); }

}  // namespace quicksave::engine
