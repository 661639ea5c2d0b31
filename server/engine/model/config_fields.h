#ifndef QUICKSAVE_SERVER_ENGINE_MODEL_CONFIG_FIELDS_H_
#define QUICKSAVE_SERVER_ENGINE_MODEL_CONFIG_FIELDS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quicksave::engine {

// Typed reading of a JSON object's fields; remembers the first that is wrong or asks for what the engine lacks, after
// which the values that it returns mean nothing. A field that is null counts as absent. The object must outlive it.
class ConfigFields {
 public:
  explicit ConfigFields(const nlohmann::json& json) : json_(json) {}

  bool Has(const char* name) const { return json_.contains(name) && !json_[name].is_null(); }
  // The field, or null.
  nlohmann::json Get(const char* name) const { return Has(name) ? json_[name] : nlohmann::json(); }
  const nlohmann::json& json() const { return json_; }

  // A number from `low` to `high`. Without a fallback the field must be there.
  double Number(const char* name, std::optional<double> fallback, double low, double high);
  int Integer(const char* name, std::optional<double> fallback, int low, int high);
  bool Bool(const char* name, bool fallback);

  // INVALID_ARGUMENT with this message.
  void Fail(absl::string_view message);
  // UNIMPLEMENTED: the model needs this feature.
  void Refuse(absl::string_view feature);
  void Fail(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& json_;
  absl::Status status_;
};

}  // namespace quicksave::engine

#endif  // QUICKSAVE_SERVER_ENGINE_MODEL_CONFIG_FIELDS_H_
