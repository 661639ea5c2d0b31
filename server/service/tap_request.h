#ifndef QUICKSAVE_SERVER_SERVICE_TAP_REQUEST_H_
#define QUICKSAVE_SERVER_SERVICE_TAP_REQUEST_H_

// What a request says of hidden states, and what we say of them.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "quicksave/v1/session.pb.h"
#include "quicksave/v1/snapshot_service.pb.h"
#include "server/engine/taps.h"
#include "server/scheduler/session_state.h"
#include "server/service/core.h"

namespace quicksave::server {

// The spec, its layers in order; without layers when nothing is to be captured. INVALID_ARGUMENT naming what is wrong.
absl::StatusOr<engine::TapSpec> FromProto(const v1::TapSpec& spec, int model_layers);

// Whether this request's tokens must all be computed, because the hidden states of all of them are wanted.
bool CapturesAllTokens(const v1::GenerateRequest& request);

// Whether the request ends the capture of hidden states.
bool EndsTaps(const v1::GenerateRequest& request);

// Whether a session may come to hold `bytes` of hidden states: within the limit of a session, and with what the other
// sessions have now within that of all. What calls in work will add is not known to it, so together they may exceed
// that. RESOURCE_EXHAUSTED that begins with the name of the limit; `what` says what has the bytes, `advice` what to do
// about the limit of a session.
absl::Status AdmitTaps(const Core& core, int64_t bytes, absl::string_view what, absl::string_view advice);

// The same of a session that `node` is restored to.
absl::Status AdmitNodeTaps(const Core& core, absl::string_view node, int64_t bytes);

// Makes the state of a session that was taken capture what the request asks for; what it has stays where it asks for
// nothing else. `appended` tokens follow at most. Errors of AdmitTaps; the request is valid.
absl::Status ResumeTaps(const Core& core, const v1::GenerateRequest& request, int appended, SessionState& state);

// Leaves `out` alone when nothing is captured.
template <class Resource>
void TapsToProto(const engine::TapExtent& extent, Resource* out) {
  if (!extent.on()) return;
  v1::Taps& taps = *out->mutable_taps();
  taps.mutable_spec()->mutable_layers()->Assign(extent.spec.layers.begin(), extent.spec.layers.end());
  taps.mutable_spec()->set_tokens(extent.spec.all_tokens ? v1::TapSpec::TOKENS_ALL : v1::TapSpec::TOKENS_LAST);
  taps.set_first_token(extent.first_token);
  taps.set_token_count(extent.token_count);
  taps.set_hidden_size(extent.hidden_size);
  taps.set_bytes(extent.bytes());
}

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVICE_TAP_REQUEST_H_
