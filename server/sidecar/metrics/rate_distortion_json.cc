#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/sidecar/metrics/rate_distortion.h"

namespace quicksave::metrics {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 1;

// Calls visit(name, field) for each field: the one list of them, for writing and for reading.
template <typename Point, typename Visit>
void VisitPoint(Point& point, const Visit& visit) {
  visit("codec", point.codec);
  visit("text_kind", point.text_kind);
  visit("context_tokens", point.context_tokens);
  visit("split_layers", point.split_layers);
  visit("step", point.step);
  visit("effective_ratio", point.effective_ratio);
  visit("nominal_ratio", point.nominal_ratio);
  visit("mean_kl", point.mean_kl);
  visit("p99_kl", point.p99_kl);
  visit("top_1_agreement", point.top_1_agreement);
  visit("perplexity_ratio", point.perplexity_ratio);
  visit("bytes_per_token", point.bytes_per_token);
  visit("encode_mb_per_s", point.encode_mb_per_s);
  visit("decode_mb_per_s", point.decode_mb_per_s);
  visit("sidecar_bytes", point.sidecar_bytes);
  visit("scored_tokens", point.scored_tokens);
}

template <typename Control, typename Visit>
void VisitControl(Control& control, const Visit& visit) {
  visit("name", control.name);
  visit("mean_kl", control.mean_kl);
}

// Reads members of objects and remembers what was wrong first; `where` says of which object.
class FieldReader {
 public:
  void Read(const std::string& where, const Json& object, const char* name, std::string& value) {
    const Json* field = Find(where, object, name);
    if (field == nullptr) return;
    if (!field->is_string()) return Refuse(where, name, "is not a string");
    value = field->get<std::string>();
  }
  void Read(const std::string& where, const Json& object, const char* name, double& value) {
    const Json* field = Find(where, object, name);
    if (field == nullptr) return;
    if (!field->is_number()) return Refuse(where, name, "is not a number");
    value = field->get<double>();
  }
  void Read(const std::string& where, const Json& object, const char* name, int64_t& value) {
    const Json* field = Find(where, object, name);
    if (field == nullptr) return;
    const bool fits = field->is_number_integer() &&
                      (!field->is_number_unsigned() ||
                       field->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    if (!fits) return Refuse(where, name, "is not an integer of 64 bits");
    value = field->get<int64_t>();
  }

  // A member that must be an array; an empty one if it is not there or something else.
  const Json& ReadArray(const Json& object, const char* name) {
    static const Json& none = *new Json(Json::array());
    const Json* field = Find("report", object, name);
    if (field == nullptr) return none;
    if (field->is_array()) return *field;
    Refuse("report", name, "is not an array");
    return none;
  }

  void Refuse(const std::string& where, const char* name, const char* wrong) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(where, ": ", name, " ", wrong));
  }
  const absl::Status& status() const { return status_; }

 private:
  const Json* Find(const std::string& where, const Json& object, const char* name) {
    if (!object.is_object()) {
      Refuse(where, name, "cannot be read: not an object");
      return nullptr;
    }
    const auto field = object.find(name);
    if (field != object.end()) return &*field;
    Refuse(where, name, "is missing");
    return nullptr;
  }

  absl::Status status_;
};

RateDistortionReport ReadReport(const Json& json, FieldReader& reader) {
  RateDistortionReport report;
  int64_t version = 0;
  reader.Read("report", json, "version", version);
  if (version != kVersion) reader.Refuse("report", "version", "is not one that this program reads");
  reader.Read("report", json, "model", report.model);
  reader.Read("report", json, "machine", report.machine);
  reader.Read("report", json, "command", report.command);
  if (json.is_object() && json.contains("noise_floor_kl")) {
    reader.Read("report", json, "noise_floor_kl", report.noise_floor_kl.emplace());
  }
  for (const Json& entry : reader.ReadArray(json, "controls")) {
    const std::string where = absl::StrCat("control ", report.controls.size());
    VisitControl(report.controls.emplace_back(),
                 [&](const char* name, auto& field) { reader.Read(where, entry, name, field); });
  }
  if (json.is_object() && json.contains("remarks")) {
    for (const Json& entry : reader.ReadArray(json, "remarks")) {
      if (!entry.is_string()) reader.Refuse("report", "remarks", "are not all strings");
      report.remarks.push_back(entry.is_string() ? entry.get<std::string>() : "");
    }
  }
  for (const Json& entry : reader.ReadArray(json, "points")) {
    const std::string where = absl::StrCat("point ", report.points.size());
    VisitPoint(report.points.emplace_back(),
               [&](const char* name, auto& field) { reader.Read(where, entry, name, field); });
  }
  return report;
}

}  // namespace

absl::StatusOr<std::string> ReportToJson(const RateDistortionReport& report) {
  if (absl::Status status = CheckReport(report); !status.ok()) return status;
  Json json = {
      {"version", kVersion}, {"model", report.model}, {"machine", report.machine}, {"command", report.command}};
  if (report.noise_floor_kl.has_value()) json["noise_floor_kl"] = *report.noise_floor_kl;
  if (!report.remarks.empty()) json["remarks"] = report.remarks;
  json["controls"] = Json::array();
  for (const NegativeControl& control : report.controls) {
    Json& entry = json["controls"].emplace_back(Json::object());
    VisitControl(control, [&](const char* name, const auto& field) { entry[name] = field; });
  }
  json["points"] = Json::array();
  for (const RateDistortionPoint& point : report.points) {
    Json& entry = json["points"].emplace_back(Json::object());
    VisitPoint(point, [&](const char* name, const auto& field) { entry[name] = field; });
  }
  return json.dump(2) + "\n";
}

absl::StatusOr<RateDistortionReport> ReportFromJson(absl::string_view json) {
  const Json parsed = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return absl::InvalidArgumentError("the report is not JSON");
  FieldReader reader;
  RateDistortionReport report = ReadReport(parsed, reader);
  if (!reader.status().ok()) return reader.status();
  if (absl::Status status = CheckReport(report); !status.ok()) return status;
  return report;
}

}  // namespace quicksave::metrics
