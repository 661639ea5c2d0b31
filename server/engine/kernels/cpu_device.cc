#include "server/engine/kernels/cpu_device.h"

#include <algorithm>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quicksave::engine {

namespace {
// Rows of a sequence whose attention is one item of work: large enough to share loads of keys, small enough to spread.
constexpr int kAttentionRows = 16;

int PaddedInputs(int inputs) { return (inputs + 31) / 32 * 32; }
}  // namespace

std::string CpuDevice::name() const {
  const std::string instructions = cpu::InstructionSet();
  // Highway calls every form of AVX-512 AVX3.
  if (absl::StartsWith(instructions, "AVX3")) return "cpu avx-512";
  return absl::StrCat("cpu ", absl::AsciiStrToLower(instructions));
}

void CpuDevice::MatMul(const float* x, int rows, const Matrix& w, float* y) {
  if (const auto* matrix = std::get_if<cpu::Int8Matrix>(&w)) {
    fixed_.Resize(rows, matrix->inputs());
    const int stride = PaddedInputs(matrix->inputs());
    ForRows(rows, [&](int begin, int end) { cpu::FixPoint(x, stride, begin, end, fixed_); });
  }
  std::visit(
      [&](const auto& matrix) {
        const int parts = std::min(matrix.panels(), threads_->threads() * 8);
        threads_->ParallelFor(parts, [&](int part) {
          const int first = matrix.panels() * part / parts;
          const int last = matrix.panels() * (part + 1) / parts;
          if constexpr (std::is_same_v<decltype(matrix), const cpu::Int8Matrix&>) {
            cpu::MatMul(fixed_, matrix, first, last, y, matrix.outputs());
          } else {
            cpu::MatMul(x, PaddedInputs(matrix.inputs()), rows, matrix, first, last, y, matrix.outputs());
          }
        });
      },
      w);
}

void CpuDevice::RmsNorm(const float* x, const float* weight, int rows, int width, float epsilon, float* y,
                        cpu::Rounding rounding) {
  ForRows(rows, [&](int begin, int end) {
    const size_t first = size_t(begin) * width;
    cpu::RmsNorm(x + first, weight, end - begin, width, epsilon, y + first, rounding);
  });
}

void CpuDevice::RmsNormInPlace(float* x, const cpu::Groups& groups, const float* weight, float epsilon) {
  ForRows(groups.rows, [&](int begin, int end) {
    const cpu::Groups part{end - begin, groups.count, groups.width, groups.x_stride};
    cpu::RmsNormInPlace(x + size_t(begin) * groups.x_stride, part, weight, epsilon);
  });
}

void CpuDevice::Rope(float* x, int x_stride, int heads, int head_dim, const Batch& batch, const float* cos_sin) {
  ForRows(batch.rows, [&](int begin, int end) {
    cpu::Rope(x + size_t(begin) * x_stride, x_stride, end - begin, heads, head_dim, batch.positions + begin, cos_sin);
  });
}

void CpuDevice::SwiGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) {
  ForRows(rows, [&](int begin, int end) {
    const size_t first = size_t(begin) * width;
    cpu::SwiGlu(gate_up + 2 * first, end - begin, width, y + first, rounding);
  });
}

void CpuDevice::GeGlu(const float* gate_up, int rows, int width, float* y, cpu::Rounding rounding) {
  ForRows(rows, [&](int begin, int end) {
    const size_t first = size_t(begin) * width;
    cpu::GeGlu(gate_up + 2 * first, end - begin, width, y + first, rounding);
  });
}

void CpuDevice::Add(float* x, const float* y, int rows, int width) {
  ForRows(rows, [&](int begin, int end) {
    const size_t first = size_t(begin) * width;
    cpu::Add(x + first, y + first, size_t(end - begin) * width);
  });
}

void CpuDevice::AddBias(float* x, const float* bias, int rows, int width) {
  ForRows(rows, [&](int begin, int end) { cpu::AddBias(x + size_t(begin) * width, bias, end - begin, width); });
}

void CpuDevice::SoftCap(float* x, size_t count, float cap) { cpu::SoftCap(x, count, cap); }

void CpuDevice::Gather(const float* x, const int32_t* rows, int count, int width, float* y) {
  for (int i = 0; i < count; ++i) std::copy_n(x + size_t(rows[i]) * width, width, y + size_t(i) * width);
}

void CpuDevice::StoreKeyValues(const float* key_value, int stride, const Batch& batch, const cpu::HeadShape& shape,
                               const LayerOffsets& offsets) {
  for (int row = 0; row < batch.rows; ++row) {
    const int position = batch.positions[row];
    std::byte* page = batch.pages[row][position / cpu::kPageTokens];
    const float* key = key_value + size_t(row) * stride;
    cpu::StoreKeyValue(key, key + size_t(shape.kv_heads) * shape.head_dim, shape, position % cpu::kPageTokens,
                       page + offsets.keys, page + offsets.values);
  }
}

void CpuDevice::Attention(const float* query, int query_stride, const Batch& batch, const cpu::HeadShape& shape,
                          const LayerOffsets& offsets, const cpu::AttentionOptions& options, float* out,
                          int out_stride) {
  ListAttentionItems(batch, shape.kv_heads);
  // As many lanes as there is scratch: item i runs in lane i % lanes, the lanes in parallel.
  const int lanes = std::min(static_cast<int>(items_.size()), threads_->threads() * 4);
  const size_t scratch_size = cpu::AttentionScratchSize(batch.longest);
  if (scratch_.size() < size_t(lanes)) scratch_.resize(lanes);
  for (int i = 0; i < lanes; ++i) {
    if (scratch_[i].size() < scratch_size) scratch_[i].resize(scratch_size);
  }
  threads_->ParallelFor(lanes, [&](int lane) {
    for (size_t i = lane; i < items_.size(); i += lanes) {
      const AttentionItem& item = items_[i];
      const size_t row = item.begin;
      const cpu::LayerPages pages{batch.pages[row], offsets.keys, offsets.values};
      cpu::Attention(query + row * query_stride, query_stride, item.end - item.begin, batch.positions[row], pages,
                     shape, item.kv_head, options, scratch_[lane].data(), out + row * out_stride, out_stride);
    }
  });
}

void CpuDevice::ListAttentionItems(const Batch& batch, int kv_heads) {
  items_.clear();
  for (int begin = 0, end = 0; begin < batch.rows; begin = end) {
    const int most = std::min(batch.rows, begin + kAttentionRows);
    while (end < most && batch.pages[end] == batch.pages[begin]) ++end;
    for (int head = 0; head < kv_heads; ++head) items_.push_back({begin, end, head});
  }
}

void CpuDevice::ForRows(int rows, absl::FunctionRef<void(int, int)> work) {
  // Below this, waking another thread costs more than the rows.
  constexpr int kRowsWorthAThread = 16;
  const int parts = std::clamp(rows / kRowsWorthAThread, 1, threads_->threads());
  threads_->ParallelFor(parts, [&](int part) { work(rows * part / parts, rows * (part + 1) / parts); });
}

}  // namespace quicksave::engine
