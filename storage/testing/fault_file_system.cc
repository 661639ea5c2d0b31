#include "storage/testing/fault_file_system.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "rocksdb/system_clock.h"

namespace quicksave::storage {

using rocksdb::IOStatus;

namespace {

class ImpatientClock : public rocksdb::SystemClockWrapper {
 public:
  ImpatientClock() : SystemClockWrapper(rocksdb::SystemClock::Default()) {}
  const char* Name() const override { return "ImpatientClock"; }
  void SleepForMicroseconds(int micros) override { target_->SleepForMicroseconds(std::min(micros, 1000)); }
};

}  // namespace

FaultEnv::FaultEnv(const std::shared_ptr<FaultFileSystem>& system) : EnvWrapper(rocksdb::NewCompositeEnv(system)) {
  file_system_ = system;
  system_clock_ = std::make_shared<ImpatientClock>();
}

class FaultFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultFile(std::string name, FaultFileSystem* system, std::unique_ptr<rocksdb::FSWritableFile> target)
      : FSWritableFileOwnerWrapper(std::move(target)), name_(std::move(name)), system_(*system) {}

  using rocksdb::FSWritableFileOwnerWrapper::Append;
  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                  rocksdb::IODebugContext* debug) override {
    IOStatus status = system_.Change(FaultFileSystem::Need::kSpace);
    const rocksdb::Slice part(data.data(), status.ok() ? data.size() : data.size() / 2);
    IOStatus appended = target()->Append(part, options, debug);
    size_ += part.size();
    return status.ok() ? appended : status;
  }

  IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options, const rocksdb::DataVerificationInfo&,
                  rocksdb::IODebugContext* debug) override {
    return Append(data, options, debug);
  }

  IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    return AfterChange(target()->Sync(options, debug));
  }

  IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    return AfterChange(target()->Fsync(options, debug));
  }

 private:
  IOStatus AfterChange(IOStatus done) {
    if (IOStatus status = system_.Change(FaultFileSystem::Need::kSpaceAtSync); !status.ok()) return status;
    if (done.ok()) system_.Synced(name_, size_);
    return done;
  }

  const std::string name_;
  FaultFileSystem& system_;
  uint64_t size_ = 0;
};

void FaultFileSystem::FailFrom(int64_t n) {
  absl::MutexLock lock(&mutex_);
  fail_at_ = changes_ + n;
  fail_once_ = false;
}

void FaultFileSystem::FailOnce(int64_t n) {
  absl::MutexLock lock(&mutex_);
  fail_at_ = changes_ + n;
  fail_once_ = true;
}

void FaultFileSystem::Heal() {
  absl::MutexLock lock(&mutex_);
  fail_at_ = -1;
  full_ = false;
}

void FaultFileSystem::SetFull(bool full) {
  absl::MutexLock lock(&mutex_);
  full_ = full;
}

void FaultFileSystem::SetFullAtSync(bool full) {
  absl::MutexLock lock(&mutex_);
  full_at_sync_ = full;
}

void FaultFileSystem::SetFreeBytes(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  free_bytes_ = bytes;
}

int64_t FaultFileSystem::changes() const {
  absl::MutexLock lock(&mutex_);
  return changes_;
}

void FaultFileSystem::CutPower() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, bytes] : synced_) {
    if (std::filesystem::exists(name) && std::filesystem::file_size(name) > bytes) {
      std::filesystem::resize_file(name, bytes);
    }
  }
}

IOStatus FaultFileSystem::NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* result,
                                          rocksdb::IODebugContext* debug) {
  if (IOStatus status = Change(Need::kSpace); !status.ok()) return status;
  std::unique_ptr<rocksdb::FSWritableFile> file;
  if (IOStatus status = target()->NewWritableFile(name, options, &file, debug); !status.ok()) return status;
  Synced(name, 0);
  *result = std::make_unique<FaultFile>(name, this, std::move(file));
  return IOStatus::OK();
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                                     rocksdb::IODebugContext* debug) {
  if (IOStatus status = Change(Need::kNothing); !status.ok()) return status;
  IOStatus status = target()->RenameFile(from, to, options, debug);
  absl::MutexLock lock(&mutex_);
  if (auto found = synced_.find(from); status.ok() && found != synced_.end()) {
    synced_[to] = found->second;
    synced_.erase(from);
  }
  return status;
}

IOStatus FaultFileSystem::DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                                     rocksdb::IODebugContext* debug) {
  if (IOStatus status = Change(Need::kNothing); !status.ok()) return status;
  {
    absl::MutexLock lock(&mutex_);
    synced_.erase(name);
  }
  return target()->DeleteFile(name, options, debug);
}

IOStatus FaultFileSystem::GetFreeSpace(const std::string&, const rocksdb::IOOptions&, uint64_t* free,
                                       rocksdb::IODebugContext*) {
  absl::MutexLock lock(&mutex_);
  *free = full_ || full_at_sync_ ? 0 : free_bytes_;
  return IOStatus::OK();
}

IOStatus FaultFileSystem::Change(Need need) {
  absl::MutexLock lock(&mutex_);
  const int64_t number = changes_++;
  const bool full = (full_ && need == Need::kSpace) || (full_at_sync_ && need == Need::kSpaceAtSync);
  if (full) return IOStatus::NoSpace("injected: the disk is full");
  const bool fails = fail_at_ >= 0 && (fail_once_ ? number == fail_at_ : number >= fail_at_);
  return fails ? IOStatus::IOError("injected") : IOStatus::OK();
}

void FaultFileSystem::Synced(const std::string& name, uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  synced_[name] = bytes;
}

}  // namespace quicksave::storage
