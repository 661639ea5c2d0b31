#ifndef QUICKSAVE_SERVER_TELEMETRY_LOGGING_H_
#define QUICKSAVE_SERVER_TELEMETRY_LOGGING_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"
#include "spdlog/common.h"

namespace quicksave::server {

struct LogOptions {
  std::string level = "info";  // trace, debug, info, warn, error
  bool json = false;
};

// Makes spdlog's default logger write to stderr, one line for each event: as text, or as a JSON object with time
// (RFC 3339, UTC), level, message and fields. Call once, before other threads log. Logs never hold prompts, tokens or
// generated text.
void SetUpLogging(const LogOptions& options);

// A named value of an event.
struct LogField {
  const char* name;
  std::variant<int64_t, double, std::string> value;
};

// Logs an event: in text "message name=value ...", in JSON with the fields as members. Thread-safe.
void LogEvent(spdlog::level::level_enum level, absl::string_view message, std::initializer_list<LogField> fields);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_TELEMETRY_LOGGING_H_
