#include "compressor/profile_tensors.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "compressor/byte_io.h"

namespace quicksave::compressor {
namespace {

using Json = nlohmann::json;

absl::Status Damaged(absl::string_view what) { return absl::DataLossError(absl::StrCat("damaged: ", what)); }

size_t SizeOf(const std::string& dtype) { return dtype == "F32" ? 4 : dtype == "U8" || dtype == "I8" ? 1 : 2; }

}  // namespace

const Json& Member(const Json& object, const char* name) {
  static const Json& null = *new Json();
  const auto found = object.find(name);
  return found == object.end() ? null : *found;
}

std::string Text(const Json& object, const char* name) {
  const Json& member = Member(object, name);
  return member.is_string() ? member.get<std::string>() : "";
}

int IntegerText(const Json& metadata, const char* name) {
  int number = -1;
  return absl::SimpleAtoi(Text(metadata, name), &number) ? number : -1;
}

void TensorWriter::Add(const std::string& name, const char* dtype, std::vector<size_t> shape, const void* data,
                       size_t bytes) {
  header_[name] = {
      {"dtype", dtype}, {"shape", std::move(shape)}, {"data_offsets", {data_.size(), data_.size() + bytes}}};
  data_.append(static_cast<const char*>(data), bytes);
}

void TensorWriter::Add(const std::string& name, const std::vector<float>& values) {
  if (!values.empty()) Add(name, "F32", {values.size()}, values.data(), values.size() * sizeof(float));
}

void TensorWriter::Add(const std::string& name, const Bf16Matrix& matrix) {
  if (matrix.empty()) return;
  Add(name, "BF16", {static_cast<size_t>(matrix.inputs), static_cast<size_t>(matrix.outputs)}, matrix.values.data(),
      matrix.values.size() * sizeof(uint16_t));
}

void TensorWriter::Add(const std::string& name, const WeightMatrix& matrix) {
  if (matrix.bf16() != nullptr) return Add(name, *matrix.bf16());
  if (matrix.empty()) return;
  const std::vector<int8_t> values = matrix.int8()->RowMajor();
  Add(name, "I8", {static_cast<size_t>(matrix.inputs()), static_cast<size_t>(matrix.outputs())}, values.data(),
      values.size());
  Add(absl::StrCat(name, ".scale"), matrix.int8()->scales());
}

std::string TensorWriter::Finish() const {
  std::string head = header_.dump();
  head.append((8 - head.size() % 8) % 8, ' ');
  std::string out;
  AppendInteger(out, uint64_t{head.size()});
  out += head;
  out += data_;
  AppendChecksum(out);
  return out;
}

std::vector<float> TensorReader::Floats(const std::string& name) {
  std::vector<size_t> shape;
  const std::string_view bytes = Find(name, "F32", 1, shape);
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Bf16Matrix TensorReader::Matrix(const std::string& name) {
  std::vector<size_t> shape;
  const std::string_view bytes = Find(name, "BF16", 2, shape);
  Bf16Matrix matrix;
  if (bytes.empty()) return matrix;
  matrix.inputs = static_cast<int>(shape[0]);
  matrix.outputs = static_cast<int>(shape[1]);
  matrix.values.resize(bytes.size() / sizeof(uint16_t));
  std::memcpy(matrix.values.data(), bytes.data(), bytes.size());
  return matrix;
}

WeightMatrix TensorReader::Weights(const std::string& name, size_t outputs) {
  const Json& tensor = Member(header_, name.c_str());
  if (!tensor.is_object() || Text(tensor, "dtype") != "I8") return Matrix(name);
  std::vector<size_t> shape;
  const std::string_view bytes = Find(name, "I8", 2, shape);
  std::vector<float> scales = Floats(absl::StrCat(name, ".scale"));
  const absl::Span<const int8_t> values(reinterpret_cast<const int8_t*>(bytes.data()), bytes.size());
  // Before the matrix is made, which takes more memory where there are few outputs.
  if (bytes.empty() || shape[1] != outputs || scales.size() != outputs ||
      std::count(values.begin(), values.end(), -128) > 0) {
    Fail();
    return {};
  }
  return Int8Matrix(static_cast<int>(shape[0]), static_cast<int>(shape[1]), values, std::move(scales));
}

std::string_view TensorReader::Bytes(const std::string& name) {
  std::vector<size_t> shape;
  return Find(name, "U8", 1, shape);
}

std::string_view TensorReader::Table(const std::string& name, const char* dtype, size_t rows, size_t width) {
  std::vector<size_t> shape;
  const std::string_view bytes = Find(name, dtype, 2, shape);
  if (bytes.empty() || shape[0] != rows || shape[1] != width) ok_ = false;
  return ok_ ? bytes : std::string_view();
}

std::string_view TensorReader::Find(const std::string& name, const std::string& dtype, size_t rank,
                                    std::vector<size_t>& shape) {
  const auto found = header_.find(name);
  if (found == header_.end()) return {};
  const Json& tensor = *found;
  if (!tensor.is_object() || Text(tensor, "dtype") != dtype) return Fail();
  // References: a copy of what is nested deeply would take the stack.
  const Json& dims = Member(tensor, "shape");
  const Json& offsets = Member(tensor, "data_offsets");
  if (!dims.is_array() || dims.size() != rank || !offsets.is_array() || offsets.size() != 2) return Fail();
  // No product of these dimensions overflows.
  const uint64_t most = rank == 1 ? uint64_t{1} << 40 : uint64_t{1} << 24;
  size_t bytes = SizeOf(dtype);
  for (const Json& dim : dims) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > most) return Fail();
    shape.push_back(dim.get<size_t>());
    bytes *= shape.back();
  }
  if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) return Fail();
  const uint64_t begin = offsets[0].get<uint64_t>();
  const uint64_t end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_.size() || end - begin != bytes) return Fail();
  // Tensors that shared their bytes could ask for much more memory than the file has.
  taken_ += bytes;
  return taken_ <= data_.size() ? data_.substr(begin, bytes) : Fail();
}

std::string FormatOfProfile(std::string_view bytes) {
  ByteReader reader(bytes);
  const auto head_bytes = reader.Integer<uint64_t>();
  const Json header = Json::parse(reader.Bytes(head_bytes), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return "";
  const Json& metadata = Member(header, "__metadata__");
  return metadata.is_object() ? Text(metadata, "format") : "";
}

absl::StatusOr<ProfileFile> ProfileFile::Open(std::string_view bytes, absl::string_view format, int newest_version) {
  if (bytes.size() < 16 || !ChecksumMatches(bytes)) return Damaged("its checksum does not match");
  ByteReader reader(bytes.substr(0, bytes.size() - sizeof(uint64_t)));
  const auto head_bytes = reader.Integer<uint64_t>();
  const std::string_view head = reader.Bytes(head_bytes);
  if (!reader.ok()) return Damaged("cut short");
  Json header = Json::parse(head, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Damaged("no header");
  const Json& metadata = Member(header, "__metadata__");
  if (!metadata.is_object() || Text(metadata, "format") != format) return Damaged(absl::StrCat("no ", format));
  const int version = IntegerText(metadata, "version");
  if (version < 1) return Damaged("no version");
  if (version > newest_version) {
    return absl::UnimplementedError(
        absl::StrCat("of version ", version, ", this program reads up to ", newest_version));
  }
  return ProfileFile(std::move(header), reader.rest());
}

}  // namespace quicksave::compressor
