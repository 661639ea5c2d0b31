#include "server/engine/model/config_fields.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace quicksave::engine {

using Json = nlohmann::json;

double ConfigFields::Number(const char* name, std::optional<double> fallback, double low, double high) {
  if (!Has(name) && !fallback) {
    Fail(absl::StrCat("config.json lacks '", name, "'"));
    return low;
  }
  const Json number = Has(name) ? json_[name] : Json(*fallback);
  const double value = number.is_number() ? number.get<double>() : std::nan("");
  if (!(value >= low && value <= high)) {
    Fail(absl::StrCat("config.json: '", name, "' is ", number.dump(), ", not a number from ", low, " to ", high));
    return low;
  }
  return value;
}

int ConfigFields::Integer(const char* name, std::optional<double> fallback, int low, int high) {
  const double value = Number(name, fallback, low, high);
  if (value != std::floor(value)) Fail(absl::StrCat("config.json: '", name, "' is ", value, ", not an integer"));
  return static_cast<int>(value);
}

bool ConfigFields::Bool(const char* name, bool fallback) {
  if (!Has(name)) return fallback;
  if (json_[name].is_boolean()) return json_[name].get<bool>();
  Fail(absl::StrCat("config.json: '", name, "' is ", json_[name].dump(), ", not true or false"));
  return fallback;
}

void ConfigFields::Fail(absl::string_view message) { status_.Update(absl::InvalidArgumentError(message)); }

void ConfigFields::Refuse(absl::string_view feature) {
  status_.Update(
      absl::UnimplementedError(absl::StrCat("this model needs ", feature, ", which this engine does not have")));
}

}  // namespace quicksave::engine
