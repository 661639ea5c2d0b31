// A file system that fails when told to: at the n-th change, while the disk is "full", or by a power cut.
#ifndef QUICKSAVE_STORAGE_TESTING_FAULT_FILE_SYSTEM_H_
#define QUICKSAVE_STORAGE_TESTING_FAULT_FILE_SYSTEM_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace quicksave::storage {

// Passes everything on to the system's file system and counts what changes files: creating, appending, syncing,
// renaming, deleting. Thread-safe.
class FaultFileSystem : public rocksdb::FileSystemWrapper {
 public:
  FaultFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultFileSystem"; }

  // The change number `n` from now (0 is the next one) fails, an append after half of its bytes, and so does every
  // later one: the process is as good as dead.
  void FailFrom(int64_t n);
  // As FailFrom, but only this one change fails.
  void FailOnce(int64_t n);
  // Every change works again.
  void Heal();
  // While full, creating and appending fail with NoSpace, and no space is free.
  void SetFull(bool full);
  // While so, no space is free, and only syncing says so, as on some network file systems.
  void SetFullAtSync(bool full);
  // What GetFreeSpace answers.
  void SetFreeBytes(uint64_t bytes);
  // Changes counted so far.
  int64_t changes() const;
  // Cuts every file down to what was synced. The store must be closed.
  void CutPower();

  using rocksdb::FileSystemWrapper::GetFreeSpace;
  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* result,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus GetFreeSpace(const std::string& path, const rocksdb::IOOptions& options, uint64_t* free,
                                 rocksdb::IODebugContext* debug) override;

 private:
  friend class FaultFile;

  enum class Need { kNothing, kSpace, kSpaceAtSync };
  // Counts a change and says whether it fails.
  rocksdb::IOStatus Change(Need need);
  void Synced(const std::string& name, uint64_t bytes);

  mutable absl::Mutex mutex_;
  int64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t fail_at_ ABSL_GUARDED_BY(mutex_) = -1;
  bool fail_once_ ABSL_GUARDED_BY(mutex_) = false;
  bool full_ ABSL_GUARDED_BY(mutex_) = false;
  bool full_at_sync_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t free_bytes_ ABSL_GUARDED_BY(mutex_) = uint64_t{1} << 40;
  std::map<std::string, uint64_t> synced_ ABSL_GUARDED_BY(mutex_);
};

// An Env over such a file system in which nobody sleeps long: RocksDB waits a second after each failed flush.
class FaultEnv : public rocksdb::EnvWrapper {
 public:
  explicit FaultEnv(const std::shared_ptr<FaultFileSystem>& system);
};

}  // namespace quicksave::storage

#endif  // QUICKSAVE_STORAGE_TESTING_FAULT_FILE_SYSTEM_H_
