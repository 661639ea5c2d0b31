// Files of profiles: safetensors with a checksum at the end, written so that equal contents give equal bytes, and read
// so that a hostile file is an error and asks for no more memory than it has bytes.

#ifndef QUICKSAVE_COMPRESSOR_PROFILE_TENSORS_H_
#define QUICKSAVE_COMPRESSOR_PROFILE_TENSORS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compressor/latent/panel_product.h"
#include "compressor/latent/weight_matrix.h"
#include "nlohmann/json.hpp"

namespace quicksave::compressor {

// What an object has under that name, or null.
const nlohmann::json& Member(const nlohmann::json& object, const char* name);
// The text of that name in an object, or "" where there is none.
std::string Text(const nlohmann::json& object, const char* name);
// A number of the metadata, where all values are texts; -1 if it is none.
int IntegerText(const nlohmann::json& metadata, const char* name);

// Puts a file together. The values of each tensor are little endian, one after the other. What is empty is left out.
class TensorWriter {
 public:
  void Add(const std::string& name, const char* dtype, std::vector<size_t> shape, const void* data, size_t bytes);
  void Add(const std::string& name, const std::vector<float>& values);
  void Add(const std::string& name, const Bf16Matrix& matrix);
  // 8-bit integers with their scales as a tensor NAME.scale.
  void Add(const std::string& name, const WeightMatrix& matrix);
  void AddMetadata(const nlohmann::json& metadata) { header_["__metadata__"] = metadata; }
  // The whole file.
  std::string Finish() const;

 private:
  nlohmann::json header_ = nlohmann::json::object();
  std::string data_;
};

// Reads tensors; remembers that something was missing or of another kind. Does not own what it reads.
class TensorReader {
 public:
  TensorReader(const nlohmann::json& header, std::string_view data) : header_(header), data_(data) {}

  bool ok() const { return ok_; }

  // Nothing where there is no such tensor.
  std::vector<float> Floats(const std::string& name);
  Bf16Matrix Matrix(const std::string& name);
  // Either form, with so many outputs.
  WeightMatrix Weights(const std::string& name, size_t outputs);
  std::string_view Bytes(const std::string& name);
  // [rows, width] of some type.
  std::string_view Table(const std::string& name, const char* dtype, size_t rows, size_t width);

 private:
  std::string_view Fail() {
    ok_ = false;
    return {};
  }
  std::string_view Find(const std::string& name, const std::string& dtype, size_t rank, std::vector<size_t>& shape);

  const nlohmann::json& header_;
  const std::string_view data_;
  size_t taken_ = 0;
  bool ok_ = true;
};

// The format that a file says it has; "" where it says none. Checks nothing else.
std::string FormatOfProfile(std::string_view bytes);

// A file that was opened: its header. The bytes must outlive it.
class ProfileFile {
 public:
  // Checks checksum, header, format and version. DATA_LOSS for damage and another format, UNIMPLEMENTED for a newer
  // version; messages go on from what the caller calls the file.
  static absl::StatusOr<ProfileFile> Open(std::string_view bytes, absl::string_view format, int newest_version);

  const nlohmann::json& metadata() const { return Member(header_, "__metadata__"); }
  // Must not outlive this.
  TensorReader tensors() const { return {header_, data_}; }

 private:
  ProfileFile(nlohmann::json header, std::string_view data) : header_(std::move(header)), data_(data) {}

  nlohmann::json header_;
  std::string_view data_;
};

}  // namespace quicksave::compressor

#endif  // QUICKSAVE_COMPRESSOR_PROFILE_TENSORS_H_
