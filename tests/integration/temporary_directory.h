#ifndef QUICKSAVE_TESTS_INTEGRATION_TEMPORARY_DIRECTORY_H_
#define QUICKSAVE_TESTS_INTEGRATION_TEMPORARY_DIRECTORY_H_

#include <filesystem>
#include <string>

namespace quicksave::integration {

// A fresh folder that is removed, with all that is in it, when this goes out of scope.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Returns the path of `name` below it.
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace quicksave::integration

#endif  // QUICKSAVE_TESTS_INTEGRATION_TEMPORARY_DIRECTORY_H_
