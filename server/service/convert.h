#ifndef QUICKSAVE_SERVER_SERVICE_CONVERT_H_
#define QUICKSAVE_SERVER_SERVICE_CONVERT_H_

// Between our types and the messages of quicksave.v1. Pure functions, except that text needs the tokenizer.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "quicksave/v1/node.pb.h"
#include "quicksave/v1/session.pb.h"
#include "server/archive/archive.h"
#include "server/scheduler/session_table.h"
#include "server/service/core.h"
#include "storage/store.h"

namespace quicksave::server {

void ToProto(absl::Duration duration, google::protobuf::Duration* out);
void ToProto(absl::Time time, google::protobuf::Timestamp* out);
void ToProto(const engine::SamplingParameters& sampling, v1::SamplingParameters* out);
void ToProto(const SaveReport& report, v1::SaveReport* out);
// Its constraint must not be null.
void ToProto(const ConstraintState& constraint, v1::ActiveConstraint* out);
// Fields of SESSION_VIEW_BASIC.
void ToProto(const SessionInfo& info, const Core& core, v1::Session* out);
// Fields of NODE_VIEW_BASIC, and those of NODE_VIEW_FULL that `record` has the contents for when `view` asks for them.
void ToProto(const storage::NodeRecord& record, const Core& core, v1::NodeView view, v1::Node* out);
v1::EdgeType ToProto(storage::EdgeType type);
// Errors by layer only with NODE_VIEW_FULL.
void ToProto(const storage::v1::Encoding& encoding, v1::NodeView view, v1::Encoding* out);
void ToProto(const storage::v1::EncodingSummary& summary, v1::Encoding* out);
void ToProto(const storage::v1::Fidelity& fidelity, v1::NodeView view, v1::Fidelity* out);

// INVALID_ARGUMENT when a bound is not a number or not one that it can be.
absl::Status CheckBudget(const v1::FidelityBudget& budget);
// INVALID_ARGUMENT when it is not a duration.
absl::StatusOr<absl::Duration> FromProto(const google::protobuf::Duration& duration);
absl::StatusOr<absl::Time> FromProto(const google::protobuf::Timestamp& time);
// `base` with the fields that are set replaced, validated for a vocabulary.
absl::StatusOr<engine::SamplingParameters> FromProto(const v1::SamplingParameters& sampling,
                                                     engine::SamplingParameters base, int vocab_size);
// Null without a kind. What it says is not looked at.
std::shared_ptr<const text::Constraint> FromProto(const v1::Constraint& constraint);

// The id of a resource name: "nodes/abc" -> "abc". INVALID_ARGUMENT, with an example, when it is not such a name.
absl::StatusOr<std::string> ParseName(const std::string& name, const char* collection);

// Text of tokens, control tokens included.
std::string TextOf(const Core& core, absl::Span<const int32_t> tokens);
// Its last characters, on one line, for lists.
std::string TextTail(const Core& core, absl::Span<const int32_t> tokens);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_CONVERT_H_
