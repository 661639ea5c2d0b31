#include "server/engine/model/weight_format.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/engine/kernels/cpu_kernels.h"
#include "server/engine/kernels/int8_matmul.h"

namespace quicksave::engine {

std::string WeightFormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kFp32:
      return "fp32";
  }
  return "";
}

std::string NumericsVersion(WeightFormat format) {
  const absl::string_view rest = absl::StripPrefix(cpu::kNumericsVersion, "bf16");
  switch (format) {
    case WeightFormat::kBf16:
      return cpu::kNumericsVersion;
    case WeightFormat::kInt8:
      return absl::StrCat("int8-g", cpu::Int8Matrix::kGroup, rest);
    case WeightFormat::kFp32:
      return absl::StrCat("fp32", rest);
  }
  return "";
}

}  // namespace quicksave::engine
