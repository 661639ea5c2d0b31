#include "server/service/tap_request.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"

namespace quicksave::server {

absl::StatusOr<engine::TapSpec> FromProto(const v1::TapSpec& spec, int model_layers) {
  if (!v1::TapSpec::Tokens_IsValid(spec.tokens())) {
    return absl::InvalidArgumentError(absl::StrCat("taps.tokens: ", static_cast<int>(spec.tokens()), " is not known"));
  }
  // More cannot differ, and are not worth sorting.
  if (spec.layers_size() > model_layers + 2) {
    return absl::InvalidArgumentError(absl::StrCat("taps.layers: there are ", spec.layers_size(), "; each of 0 to ",
                                                   model_layers + 1, " may be named once"));
  }
  engine::TapSpec result{.all_tokens = spec.tokens() == v1::TapSpec::TOKENS_ALL};
  for (const uint32_t layer : spec.layers()) {
    result.layers.push_back(static_cast<int>(std::min<uint32_t>(layer, std::numeric_limits<int>::max())));
  }
  std::sort(result.layers.begin(), result.layers.end());
  if (absl::Status status = engine::Validate(result, model_layers); !status.ok()) return status;
  return result;
}

bool CapturesAllTokens(const v1::GenerateRequest& request) {
  return request.taps().tokens() == v1::TapSpec::TOKENS_ALL && !request.taps().layers().empty();
}

bool EndsTaps(const v1::GenerateRequest& request) { return request.has_taps() && request.taps().layers().empty(); }

absl::Status AdmitTaps(const Core& core, int64_t bytes, absl::string_view what, absl::string_view advice) {
  if (bytes > core.limits.max_tap_bytes_per_session) {
    return absl::ResourceExhaustedError(absl::StrCat("max_tap_bytes_per_session: ", what, " take ", bytes,
                                                     " bytes, the limit is ", core.limits.max_tap_bytes_per_session,
                                                     "; ", advice));
  }
  const int64_t held = core.sessions->counters().tap_bytes;
  if (bytes <= core.limits.max_tap_bytes - held) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("max_tap_bytes: ", what, " take ", bytes, " bytes, the other sessions have ", held,
                   ", the limit is ", core.limits.max_tap_bytes, "; delete sessions or let their leases end"));
}

absl::Status AdmitNodeTaps(const Core& core, absl::string_view node, int64_t bytes) {
  return AdmitTaps(core, bytes, absl::StrCat("the hidden states of ", node),
                   "they can be read without restoring it, a Generate whose taps have no layers goes on without them, "
                   "and a server with a greater limit restores it");
}

absl::Status ResumeTaps(const Core& core, const v1::GenerateRequest& request, int appended, SessionState& state) {
  const engine::ModelConfig& model = core.decoder->config();
  if (request.has_taps()) {
    const absl::StatusOr<engine::TapSpec> spec = FromProto(request.taps(), model.layers);
    if (!spec.ok()) return spec.status();
    if (spec->layers.empty()) {
      state.taps = {};
    } else if (!state.taps.on() || state.taps.extent().spec != *spec) {
      state.taps = engine::Taps(*spec, model.hidden_size);
    }
  }
  if (!state.taps.on()) return absl::OkStatus();
  const engine::TapExtent extent = state.taps.extent();
  // The last token may be evaluated once more.
  const int64_t tokens = extent.spec.all_tokens ? int64_t{extent.token_count} + appended + 1 : 1;
  const int64_t bytes = tokens * extent.bytes_per_token();
  return AdmitTaps(
      core, bytes,
      absl::StrCat("hidden states of ", extent.spec.layers.size(), " layers for up to ", tokens, " tokens"),
      "capture fewer layers or only the last token, or give a smaller stop.max_tokens");
}

}  // namespace quicksave::server
