#include "server/archive/block_plan.h"

#include <algorithm>

namespace quicksave::server {
namespace {

// The blocks of [begin, end), which lies in one window, given those stored blocks that are kept.
std::vector<PlannedBlock> PlanWindow(absl::Span<const StoredBlock> kept, int begin, int end) {
  std::vector<PlannedBlock> blocks;
  int next = begin;
  const auto cut_until = [&](int token) {
    if (next < token) blocks.push_back({.first_token = next, .token_count = token - next});
  };
  for (const StoredBlock& block : kept) {
    cut_until(block.first_token);
    blocks.push_back({.first_token = block.first_token, .token_count = block.token_count, .stored = &block});
    next = block.first_token + block.token_count;
  }
  cut_until(end);
  if (blocks.size() > kMaxPieces) return {{.first_token = begin, .token_count = end - begin}};
  return blocks;
}

}  // namespace

std::vector<PlannedBlock> PlanBlocks(absl::Span<const StoredBlock> stored, int common_tokens, int token_count) {
  const int limit = std::min(common_tokens, token_count);
  std::vector<PlannedBlock> plan;
  size_t next = 0;
  for (int begin = 0; begin < token_count; begin += kWindowTokens) {
    const int end = std::min(begin + kWindowTokens, token_count);
    const size_t first = next;
    const int keep_until = std::min(end, limit);
    while (next < stored.size() && stored[next].first_token + stored[next].token_count <= keep_until) ++next;
    const std::vector<PlannedBlock> window = PlanWindow(stored.subspan(first, next - first), begin, end);
    plan.insert(plan.end(), window.begin(), window.end());
  }
  return plan;
}

}  // namespace quicksave::server
