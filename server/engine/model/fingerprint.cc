#include "server/engine/model/fingerprint.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "openssl/evp.h"
#include "server/engine/model/safetensors.h"

namespace quicksave::engine {
namespace {

constexpr size_t kFingerprintDigits = 32;
constexpr size_t kChunkBytes = size_t{1} << 20;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1;
  }
  void Add(absl::string_view bytes) { ok_ = ok_ && EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1; }
  // Lower-case hexadecimal.
  absl::StatusOr<std::string> Finish() {
    std::string digest(EVP_MAX_MD_SIZE, '\0');
    unsigned size = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size) == 1;
    if (!ok_) return absl::InternalError("OpenSSL cannot compute SHA-256");
    digest.resize(size);
    return absl::BytesToHexString(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
  bool ok_ = false;
};

absl::Status AddFile(const std::filesystem::path& path, Sha256& hash) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat("there is no file ", path.string()));
  }
  const uint64_t size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) return absl::UnavailableError(absl::StrCat("cannot read ", path.string()));
  // Neither name nor number can hold a line feed, so the framing is unambiguous.
  hash.Add(absl::StrCat(path.filename().string(), "\n", size, "\n"));
  std::vector<char> chunk(kChunkBytes);
  uint64_t read = 0;
  while (file.read(chunk.data(), static_cast<std::streamsize>(chunk.size())), file.gcount() > 0) {
    hash.Add({chunk.data(), static_cast<size_t>(file.gcount())});
    read += static_cast<uint64_t>(file.gcount());
  }
  if (read == size) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("read ", read, " of ", size, " bytes of ", path.string()));
}

}  // namespace

absl::StatusOr<std::string> ModelFingerprint(const std::string& model_dir, absl::string_view numerics_version) {
  const absl::StatusOr<std::set<std::string>> weights = ListWeightFiles(model_dir);
  if (!weights.ok()) return weights.status();
  std::vector<std::string> files = {"config.json", "tokenizer.json"};
  files.insert(files.end(), weights->begin(), weights->end());
  Sha256 hash;
  hash.Add(absl::StrCat("quicksave model fingerprint 1\n", numerics_version, "\n"));
  for (const std::string& file : files) {
    if (absl::Status status = AddFile(std::filesystem::path(model_dir) / file, hash); !status.ok()) return status;
  }
  absl::StatusOr<std::string> digest = hash.Finish();
  if (!digest.ok()) return digest.status();
  return digest->substr(0, kFingerprintDigits);
}

}  // namespace quicksave::engine
