#include "server/engine/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace quicksave::engine {
namespace {

using Json = nlohmann::json;
constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxHeaderBytes = 100 << 20;

size_t DtypeBytes(const std::string& dtype) {
  if (dtype == "BF16" || dtype == "F16") return 2;
  if (dtype == "F32") return 4;
  return 0;
}

absl::Status Damaged(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, " is not a whole safetensors file: ", what));
}

// Checks one entry of the header against the size of the data that follows it.
absl::StatusOr<TensorView> ParseEntry(const Json& entry, absl::Span<const std::byte> data) {
  TensorView tensor;
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
      !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
      entry["data_offsets"].size() != 2 || !entry["data_offsets"][0].is_number_unsigned() ||
      !entry["data_offsets"][1].is_number_unsigned()) {
    return absl::InvalidArgumentError("malformed entry");
  }
  tensor.dtype = entry["dtype"].get<std::string>();
  size_t count = 1;
  for (const Json& dimension : entry["shape"]) {
    if (!dimension.is_number_unsigned()) return absl::InvalidArgumentError("malformed shape");
    tensor.shape.push_back(dimension.get<int64_t>());
    if (__builtin_mul_overflow(count, dimension.get<size_t>(), &count)) return absl::InvalidArgumentError("huge shape");
  }
  const size_t begin = entry["data_offsets"][0].get<size_t>();
  const size_t end = entry["data_offsets"][1].get<size_t>();
  if (begin > end || end > data.size()) return absl::InvalidArgumentError("data beyond the end of the file");
  tensor.data = data.subspan(begin, end - begin);
  if (const size_t width = DtypeBytes(tensor.dtype); width != 0) {
    if ((end - begin) % width != 0 || (end - begin) / width != count) {
      return absl::InvalidArgumentError("size and shape disagree");
    }
    if (reinterpret_cast<uintptr_t>(tensor.data.data()) % width != 0) {
      return absl::InvalidArgumentError("data is not aligned to its elements");
    }
  }
  return tensor;
}

// The format wants the tensors side by side, with neither holes nor overlaps.
absl::Status CheckTiling(const std::map<std::string, TensorView>& tensors, absl::Span<const std::byte> data) {
  std::vector<std::pair<absl::Span<const std::byte>, std::string>> parts;
  for (const auto& [name, tensor] : tensors) parts.emplace_back(tensor.data, name);
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.data(), a.first.size()) < std::pair(b.first.data(), b.first.size());
  });
  const std::byte* end = data.data();
  for (const auto& [part, name] : parts) {
    if (part.data() != end) return absl::InvalidArgumentError(absl::StrCat(name, ": overlaps or leaves a hole"));
    end += part.size();
  }
  if (end != data.data() + data.size()) return absl::InvalidArgumentError("data after the last tensor");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::set<std::string>> ListWeightFiles(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  if (std::filesystem::exists(dir / "model.safetensors")) return std::set<std::string>{"model.safetensors"};
  std::ifstream index(dir / "model.safetensors.index.json");
  if (!index) {
    return absl::NotFoundError(
        absl::StrCat(dir.string(), " has neither model.safetensors nor model.safetensors.index.json"));
  }
  const Json json = Json::parse(index, nullptr, /*allow_exceptions=*/false);
  const Json map = json.is_object() ? json.value("weight_map", Json()) : Json();
  if (!map.is_object()) return absl::InvalidArgumentError("model.safetensors.index.json has no weight_map");
  std::set<std::string> files;
  for (const auto& [name, file] : map.items()) {
    const std::string file_name = file.is_string() ? file.get<std::string>() : "";
    if (file_name.empty() || file_name == "." || file_name == ".." || file_name.find('/') != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("model.safetensors.index.json: bad file for ", name));
    }
    files.insert(file_name);
  }
  return files;
}

absl::StatusOr<std::unique_ptr<SafetensorsModel>> SafetensorsModel::Open(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  absl::StatusOr<std::set<std::string>> files = ListWeightFiles(model_dir);
  if (!files.ok()) return files.status();
  auto model = std::unique_ptr<SafetensorsModel>(new SafetensorsModel());
  for (const std::string& file : *files) {
    if (absl::Status status = model->MapFile((dir / file).string()); !status.ok()) return status;
  }
  return model;
}

void SafetensorsModel::DropPages() const {
  for (const Mapping& mapping : mappings_) madvise(mapping.address, mapping.size, MADV_DONTNEED);
}

SafetensorsModel::~SafetensorsModel() {
  for (const Mapping& mapping : mappings_) munmap(mapping.address, mapping.size);
}

absl::Status SafetensorsModel::MapFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::NotFoundError(absl::StrCat("cannot open ", path, ": ", std::strerror(errno)));
  const auto close_fd = absl::MakeCleanup([fd] { close(fd); });
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::InternalError(absl::StrCat("cannot stat ", path));
  const size_t size = static_cast<size_t>(info.st_size);
  if (size < kLengthBytes) return Damaged(path, "too short");
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) return absl::InternalError(absl::StrCat("cannot map ", path, ": ", std::strerror(errno)));
  mappings_.push_back({address, size});

  const auto* bytes = static_cast<const std::byte*>(address);
  uint64_t header_size;
  std::memcpy(&header_size, bytes, kLengthBytes);
  if (header_size > kMaxHeaderBytes || header_size > size - kLengthBytes) return Damaged(path, "header beyond its end");
  const char* header_begin = reinterpret_cast<const char*>(bytes) + kLengthBytes;
  const Json header = Json::parse(header_begin, header_begin + header_size, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Damaged(path, "header is not JSON");
  const absl::Span<const std::byte> data(bytes + kLengthBytes + header_size, size - kLengthBytes - header_size);
  std::map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorView> tensor = ParseEntry(entry, data);
    if (!tensor.ok()) return Damaged(path, absl::StrCat(name, ": ", tensor.status().message()));
    tensors[name] = *std::move(tensor);
  }
  if (absl::Status status = CheckTiling(tensors, data); !status.ok())
    return Damaged(path, std::string(status.message()));
  tensors_.merge(tensors);
  if (!tensors.empty()) return Damaged(path, absl::StrCat(tensors.begin()->first, " is in another file, too"));
  return absl::OkStatus();
}

absl::StatusOr<TensorView> SafetensorsModel::Tensor(const std::string& name, absl::Span<const int64_t> shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) return absl::NotFoundError(absl::StrCat("the weights lack tensor ", name));
  if (absl::MakeConstSpan(it->second.shape) != shape) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [",
                                                   absl::StrJoin(it->second.shape, ", "), "], config.json asks for [",
                                                   absl::StrJoin(shape, ", "), "]"));
  }
  return it->second;
}

}  // namespace quicksave::engine
