#ifndef QUICKSAVE_SERVER_ARCHIVE_PARKING_LOT_H_
#define QUICKSAVE_SERVER_ARCHIVE_PARKING_LOT_H_

#include <string>

#include "absl/status/status.h"
#include "server/archive/archive.h"
#include "server/scheduler/state_parker.h"

namespace quicksave::server {

// Parks states as nodes of a tenant of their own, which no caller sees. They are of no use to another process: sessions
// die with this one. All of them are of the one owner that a server has: with more, prompts that begin like a parked
// session must look among those of their own owner only. Thread-safe.
class ParkingLot : public StateParker {
 public:
  static constexpr char kTenant[] = "parked";

  ParkingLot(Archive* archive, storage::Store* store) : archive_(archive), store_(store) {}

  // Deletes what an earlier process left.
  absl::Status Clear();

  absl::StatusOr<std::string> Park(const SessionState& state) override;
  absl::StatusOr<ParkedState> Unpark(const std::string& name, engine::PageReservation& pages) override;
  void Drop(const std::string& name) override;

 private:
  Archive* const archive_;
  storage::Store* const store_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_ARCHIVE_PARKING_LOT_H_
