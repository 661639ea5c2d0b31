#include "storage/block_pins.h"

#include <utility>

#include "storage/store.h"

namespace quicksave::storage {

void BlockPinTable::Add(absl::Span<const std::string> keys) {
  absl::MutexLock lock(&mutex_);
  for (const std::string& key : keys) ++counts_[key];
}

void BlockPinTable::Remove(absl::Span<const std::string> keys) {
  absl::MutexLock lock(&mutex_);
  for (const std::string& key : keys) {
    auto it = counts_.find(key);
    if (it != counts_.end() && --it->second == 0) counts_.erase(it);
  }
}

bool BlockPinTable::Contains(absl::string_view key) const {
  absl::MutexLock lock(&mutex_);
  return counts_.contains(key);
}

BlockPin& BlockPin::operator=(BlockPin&& other) noexcept {
  if (this == &other) return *this;
  Release();
  table_ = std::move(other.table_);
  keys_ = std::move(other.keys_);
  present_ = std::move(other.present_);
  return *this;
}

BlockPin::~BlockPin() { Release(); }

void BlockPin::Release() {
  if (table_ != nullptr) table_->Remove(keys_);
  table_.reset();
}

}  // namespace quicksave::storage
