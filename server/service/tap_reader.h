#ifndef QUICKSAVE_SERVER_SERVICE_TAP_READER_H_
#define QUICKSAVE_SERVER_SERVICE_TAP_READER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/archive/tap_blocks.h"
#include "server/scheduler/call_context.h"
#include "server/service/core.h"

namespace quicksave::server {

// One ReadTaps call, without gRPC: what to send, message by message. One thread at a time.
class TapReader {
 public:
  // Finds the hidden states and checks the request. INVALID_ARGUMENT, OUT_OF_RANGE for what was not captured, saying
  // what was; FAILED_PRECONDITION (NOT_TAPPED) when nothing was; the errors of GetNode and SessionTable::Capture. May
  // wait for the engine or for memory.
  static absl::StatusOr<std::unique_ptr<TapReader>> Open(Core& core, const CallContext& call,
                                                         const v1::ReadTapsRequest& request);

  // Fills the next message; false at the end. Reads the store. Errors are those of Archive::ReadTaps.
  absl::StatusOr<bool> Next(v1::ReadTapsResponse& response);

 private:
  // Rows of one message.
  struct Chunk {
    int piece;  // index into pieces_
    int first_token;
    int token_count;
  };

  TapReader(const Core& core, const v1::ReadTapsRequest& request) : core_(core), request_(request) {}
  absl::Status OpenSession(Core& core, const CallContext& call);
  absl::Status OpenNode();
  // Settles layers and tokens, and cuts them into chunks.
  absl::Status Plan();
  absl::Status FillChunk(const Chunk& chunk, v1::TapChunk& out);

  const Core& core_;
  const v1::ReadTapsRequest request_;
  std::string name_;
  std::string model_fingerprint_;
  // One of them.
  std::optional<storage::NodeRecord> record_;
  engine::Taps taps_;

  engine::TapExtent extent_;
  std::vector<TapPiece> pieces_;
  std::vector<Chunk> chunks_;
  v1::TapHeader header_;
  bool began_ = false;
  size_t next_ = 0;
  int64_t offset_ = 0;
  // The piece that was read last.
  int loaded_ = -1;
  std::vector<float> values_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_TAP_READER_H_
