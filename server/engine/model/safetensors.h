#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_SAFETENSORS_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_SAFETENSORS_H_

// Reading of weights in the safetensors format (https://github.com/huggingface/safetensors): an 8-byte header length, a
// JSON header with dtype, shape and offsets of each tensor, then the data. One file, or shards named by
// model.safetensors.index.json.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quicksave::engine {

// One tensor of a mapped file; valid while its SafetensorsModel lives.
struct TensorView {
  std::string dtype;           // "BF16", "F16", "F32"
  std::vector<int64_t> shape;  // row-major
  absl::Span<const std::byte> data;
};

// Names of the weight files of a model directory: model.safetensors, or the shards that the index names. NOT_FOUND when
// there is neither; INVALID_ARGUMENT when the index is damaged.
absl::StatusOr<std::set<std::string>> ListWeightFiles(const std::string& model_dir);

// All tensors of a model directory, memory-mapped. Immutable, so thread-safe.
class SafetensorsModel {
 public:
  // NOT_FOUND without weights; INVALID_ARGUMENT when a file is damaged, naming it.
  static absl::StatusOr<std::unique_ptr<SafetensorsModel>> Open(const std::string& model_dir);
  ~SafetensorsModel();

  // NOT_FOUND when the model has no such tensor; INVALID_ARGUMENT when its shape is another one.
  absl::StatusOr<TensorView> Tensor(const std::string& name, absl::Span<const int64_t> shape) const;
  bool Contains(const std::string& name) const { return tensors_.contains(name); }
  // All tensors by name.
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  // Gives back the memory of what was read; tensors that are read again come from the file.
  void DropPages() const;

 private:
  struct Mapping {
    void* address;
    size_t size;
  };
  SafetensorsModel() = default;
  absl::Status MapFile(const std::string& path);

  std::vector<Mapping> mappings_;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_SAFETENSORS_H_
