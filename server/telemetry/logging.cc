#include "server/telemetry/logging.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "nlohmann/json.hpp"
#include "spdlog/formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace quicksave::server {
namespace {

using Json = nlohmann::ordered_json;

// Fields of the event that this thread is logging. The sink formats in the same thread.
thread_local absl::Span<const LogField> current_fields;

class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const absl::string_view level(spdlog::level::to_string_view(message.level).data(),
                                  spdlog::level::to_string_view(message.level).size());
    Json json = {
        {"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromChrono(message.time), absl::UTCTimeZone())},
        {"level", level},
        {"message", absl::string_view(message.payload.data(), message.payload.size())}};
    for (const LogField& field : current_fields) {
      std::visit([&](const auto& value) { json[field.name] = value; }, field.value);
    }
    const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    line.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

// One line, whatever a message holds.
class TextFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& line) override {
    const auto level = spdlog::level::to_string_view(message.level);
    std::string text = absl::StrFormat(
        "%s %-7s ", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(message.time), absl::UTCTimeZone()),
        absl::string_view(level.data(), level.size()));
    AppendOnOneLine(absl::string_view(message.payload.data(), message.payload.size()), text);
    for (const LogField& field : current_fields) {
      absl::StrAppend(&text, " ", field.name, "=");
      std::visit([&](const auto& value) { AppendValue(value, text); }, field.value);
    }
    text.push_back('\n');
    line.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<TextFormatter>(); }

 private:
  static void AppendOnOneLine(absl::string_view part, std::string& text) {
    for (const char c : part) text.push_back(static_cast<unsigned char>(c) < ' ' ? ' ' : c);
  }
  static void AppendValue(int64_t value, std::string& text) { absl::StrAppend(&text, value); }
  static void AppendValue(double value, std::string& text) { absl::StrAppend(&text, value); }
  static void AppendValue(const std::string& value, std::string& text) {
    const bool quote = value.empty() || value.find_first_of(" \"=\n\r\t") != std::string::npos;
    if (!quote) return AppendOnOneLine(value, text);
    text.push_back('"');
    for (const char c : value)
      AppendOnOneLine(c == '"' || c == '\\' ? absl::StrCat("\\", std::string(1, c)) : std::string(1, c), text);
    text.push_back('"');
  }
};

}  // namespace

void SetUpLogging(const LogOptions& options) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  if (options.json) {
    sink->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    sink->set_formatter(std::make_unique<TextFormatter>());
  }
  auto logger = std::make_shared<spdlog::logger>("", std::move(sink));
  logger->set_level(spdlog::level::from_str(options.level));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

void LogEvent(spdlog::level::level_enum level, absl::string_view message, std::initializer_list<LogField> fields) {
  current_fields = absl::MakeConstSpan(fields.begin(), fields.size());
  spdlog::default_logger_raw()->log(level, spdlog::string_view_t(message.data(), message.size()));
  current_fields = {};
}

}  // namespace quicksave::server
