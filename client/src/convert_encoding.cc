// Translation of encodings, and of the requests and answers about them.

#include "client/src/convert.h"

namespace quicksave::client {
namespace {

Fidelity FidelityFromProto(const v1::Fidelity& from) {
  return {.probe_tokens = from.probe_tokens(),
          .mean_kl = from.mean_kl(),
          .max_kl = from.max_kl(),
          .top1_agreement = from.top1_agreement(),
          .next_token_kl = from.next_token_kl(),
          .key_relative_mse = {from.key_relative_mse().begin(), from.key_relative_mse().end()},
          .value_relative_mse = {from.value_relative_mse().begin(), from.value_relative_mse().end()},
          .key_cosine = {from.key_cosine().begin(), from.key_cosine().end()},
          .value_cosine = {from.value_cosine().begin(), from.value_cosine().end()},
          .cost = FromProto(from.cost())};
}

// Only what names it.
void KeyToProto(const Encoding& from, v1::Encoding* to) {
  to->set_codec(from.codec);
  to->set_profile(from.profile);
  to->set_split(from.split);
  to->set_step(from.step);
}

}  // namespace

void ToProto(const EncodingSpec& from, v1::EncodingSpec* to) {
  to->set_profile(from.profile);
  if (from.split) to->set_split(*from.split);
  if (!from.point.empty()) to->set_point(from.point);
  if (from.step) to->set_step(*from.step);
  to->set_residual(from.residual);
  to->set_codec(from.codec);
}

Encoding FromProto(const v1::Encoding& from) {
  Encoding to{.codec = from.codec(),
              .profile = from.profile(),
              .split = from.split(),
              .step = from.step(),
              .has_residual = from.has_residual(),
              .raw_bytes = from.raw_bytes(),
              .stored_bytes = from.stored_bytes(),
              .residual_bytes = from.residual_bytes(),
              .ratio = from.ratio()};
  if (from.has_fidelity()) to.fidelity = FidelityFromProto(from.fidelity());
  return to;
}

void ToProto(const FidelityBudget& from, v1::FidelityBudget* to) {
  if (from.max_kl) to->set_max_kl(*from.max_kl);
  if (from.min_top1) to->set_min_top1(*from.min_top1);
}

EncodeNodeResponse FromProto(const v1::EncodeNodeResponse& from) {
  EncodeNodeResponse to{.node = FromProto(from.node())};
  if (from.has_encoding()) to.encoding = FromProto(from.encoding());
  for (const v1::EncodingTrial& trial : from.trials()) {
    to.trials.push_back({.encoding = FromProto(trial.encoding()),
                         .within_budget = trial.within_budget(),
                         .encode = FromProto(trial.encode())});
  }
  to.total = FromProto(from.total());
  return to;
}

Profile FromProto(const v1::Profile& from) {
  Profile to{.id = from.id(), .codec = from.codec(), .split = from.split(), .size_bytes = from.size_bytes()};
  for (const v1::DialPoint& point : from.points()) {
    to.points.push_back(
        {.name = point.name(), .step = point.step(), .ratio = point.ratio(), .mean_kl = point.mean_kl()});
  }
  return to;
}

ListProfilesResponse FromProto(const v1::ListProfilesResponse& from) {
  ListProfilesResponse to;
  for (const v1::Profile& profile : from.profiles()) to.profiles.push_back(FromProto(profile));
  return to;
}

v1::EncodeNodeRequest ToProto(const EncodeNodeRequest& from) {
  v1::EncodeNodeRequest to;
  to.set_name(from.name);
  ToProto(from.encoding, to.mutable_encoding());
  if (from.budget != FidelityBudget()) ToProto(from.budget, to.mutable_budget());
  to.set_drop_saved(from.drop_saved);
  to.set_etag(from.etag);
  to.set_request_id(from.request_id);
  return to;
}

v1::DropEncodingRequest ToProto(const DropEncodingRequest& from) {
  v1::DropEncodingRequest to;
  to.set_name(from.name);
  if (std::holds_alternative<DropSaved>(from.what)) to.set_saved(true);
  if (const auto* whole = std::get_if<DropWhole>(&from.what)) KeyToProto(whole->encoding, to.mutable_encoding());
  if (const auto* residual = std::get_if<DropResidual>(&from.what)) {
    KeyToProto(residual->encoding, to.mutable_residual_of());
  }
  to.set_etag(from.etag);
  to.set_request_id(from.request_id);
  return to;
}

v1::LoadProfileRequest ToProto(const LoadProfileRequest& from) {
  v1::LoadProfileRequest to;
  to.set_path(from.path);
  return to;
}

}  // namespace quicksave::client
