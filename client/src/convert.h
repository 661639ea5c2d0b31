// Translation between the public values and the messages of the wire.
// FromProto reads answers, ToProto writes requests; both copy and never fail. Enumeration values that this library does
// not know become kUnspecified, durations beyond what the wire holds (10,000 years) are clamped.

#ifndef QUICKSAVE_CLIENT_SRC_CONVERT_H_
#define QUICKSAVE_CLIENT_SRC_CONVERT_H_

#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "quicksave/encoding.h"
#include "quicksave/graph_requests.h"
#include "quicksave/requests.h"
#include "quicksave/server.h"
#include "quicksave/types.h"
#include "quicksave/v1/admin_service.pb.h"
#include "quicksave/v1/encoding.pb.h"
#include "quicksave/v1/graph_service.pb.h"
#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::client {

absl::Duration FromProto(const google::protobuf::Duration& from);
absl::Time FromProto(const google::protobuf::Timestamp& from);
void ToProto(absl::Duration from, google::protobuf::Duration* to);
void ToProto(absl::Time from, google::protobuf::Timestamp* to);

SamplingParameters FromProto(const v1::SamplingParameters& from);
Token FromProto(const v1::Token& from);
Encoding FromProto(const v1::Encoding& from);
Proof FromProto(const v1::Proof& from);
Session FromProto(const v1::Session& from);
Node FromProto(const v1::Node& from);
SaveReport FromProto(const v1::SaveReport& from);
void ToProto(const SamplingParameters& from, v1::SamplingParameters* to);
void ToProto(const StopConditions& from, v1::StopConditions* to);
void ToProto(const SaveOptions& from, v1::SaveOptions* to);
void ToProto(const EncodingSpec& from, v1::EncodingSpec* to);
void ToProto(const FidelityBudget& from, v1::FidelityBudget* to);

GenerateEvent FromProto(const v1::GenerateResponse& from);
GenerateFinished FromProto(const v1::GenerateFinished& from);
SavedNode FromProto(const v1::SnapshotResponse& from);
RestoreResponse FromProto(const v1::RestoreResponse& from);
BranchResponse FromProto(const v1::BranchResponse& from);
ScoreResponse FromProto(const v1::ScoreResponse& from);
ListSessionsResponse FromProto(const v1::ListSessionsResponse& from);
v1::GenerateRequest ToProto(const GenerateRequest& from);
v1::SnapshotRequest ToProto(const SnapshotRequest& from);
v1::RestoreRequest ToProto(const RestoreRequest& from);
v1::BranchRequest ToProto(const BranchRequest& from);
v1::ScoreRequest ToProto(const ScoreRequest& from);
v1::GetSessionRequest ToProto(const GetSessionRequest& from);
v1::ListSessionsRequest ToProto(const ListSessionsRequest& from);
v1::ReadTapsRequest ToProto(const ReadTapsRequest& from);
v1::DeleteSessionRequest ToProto(const DeleteSessionRequest& from);

ListNodesResponse FromProto(const v1::ListNodesResponse& from);
DeleteNodeResponse FromProto(const v1::DeleteNodeResponse& from);
TraverseResponse FromProto(const v1::TraverseResponse& from);
VerifyNodeResponse FromProto(const v1::VerifyNodeResponse& from);
v1::GetNodeRequest ToProto(const GetNodeRequest& from);
v1::ListNodesRequest ToProto(const ListNodesRequest& from);
v1::UpdateNodeRequest ToProto(const UpdateNodeRequest& from);
v1::DeleteNodeRequest ToProto(const DeleteNodeRequest& from);
v1::TraverseRequest ToProto(const TraverseRequest& from);
v1::VerifyNodeRequest ToProto(const VerifyNodeRequest& from);
EncodeNodeResponse FromProto(const v1::EncodeNodeResponse& from);
v1::EncodeNodeRequest ToProto(const EncodeNodeRequest& from);
v1::DropEncodingRequest ToProto(const DropEncodingRequest& from);

ServerStatus FromProto(const v1::GetStatusResponse& from);
CollectGarbageResponse FromProto(const v1::CollectGarbageResponse& from);
Profile FromProto(const v1::Profile& from);
ListProfilesResponse FromProto(const v1::ListProfilesResponse& from);
v1::LoadProfileRequest ToProto(const LoadProfileRequest& from);

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_CONVERT_H_
