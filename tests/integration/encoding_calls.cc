#include "tests/integration/encoding_calls.h"

#include <utility>

namespace quicksave::integration {

absl::StatusOr<v1::Encoding> EncodingCalls::EncodeAndDropSaved(const std::string& node,
                                                               const std::string& encoding) const {
  absl::StatusOr<v1::EncodeNodeResponse> response =
      Encode(node, absl::StrCat("encoding { ", encoding, " } drop_saved: true"));
  if (!response.ok()) return response.status();
  if (!response->has_encoding()) return absl::InternalError("nothing was encoded");
  return std::move(*response->mutable_encoding());
}

absl::StatusOr<v1::Node> EncodingCalls::Drop(const std::string& node, const std::string& what) const {
  absl::StatusOr<v1::DropEncodingResponse> response =
      Call<v1::DropEncodingResponse>("GraphService/DropEncoding", Named(node, what));
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_node());
}

std::string EncodingCalls::NameIn(const std::string& field, const v1::Encoding& encoding) {
  v1::Encoding name;
  name.set_codec(encoding.codec());
  name.set_profile(encoding.profile());
  name.set_split(encoding.split());
  name.set_step(encoding.step());
  return absl::StrCat(field, " { ", name.ShortDebugString(), " }");
}

absl::StatusOr<v1::Node> EncodingCalls::Get(const std::string& node) const {
  absl::StatusOr<v1::GetNodeResponse> response =
      Call<v1::GetNodeResponse>("GraphService/GetNode", Named(node, "view: NODE_VIEW_FULL"));
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_node());
}

absl::StatusOr<v1::VerifyNodeResponse> EncodingCalls::Verify(const std::string& node, bool replay) const {
  return Call<v1::VerifyNodeResponse>("GraphService/VerifyNode", Named(node, replay ? "replay: true" : ""));
}

}  // namespace quicksave::integration
