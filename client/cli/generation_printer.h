// Shows the events of a generation as they come.

#ifndef QUICKSAVE_CLIENT_CLI_GENERATION_PRINTER_H_
#define QUICKSAVE_CLIENT_CLI_GENERATION_PRINTER_H_

#include <optional>
#include <string>

#include "client/cli/console.h"
#include "quicksave/requests.h"

namespace quicksave::cli {

// Streams text to `out` and notes to `err`, or with --json one JSON line for each event to `out`.
class GenerationPrinter {
 public:
  explicit GenerationPrinter(const Console& console) : console_(console) {}

  // Shows one event. Returns true, what a callback of a generation returns to go on.
  bool operator()(const client::GenerateEvent& event);
  // Ends the line that text was written to; call it after the generation, however it ended.
  void End();
  // Whether text that the server still holds back is shown at the end: when nothing can go on from the state.
  void set_show_pending(bool show) { show_pending_ = show; }
  // The number of the sample that the events belong to, when there are several.
  void set_sample(int sample) { sample_ = sample; }
  // Whether the session that stays is named at the end.
  void set_name_session(bool name) { name_session_ = name; }

 private:
  void Show(std::monostate) {}
  void Show(const client::GenerateStarted& event);
  void Show(const client::GenerateDelta& event) { Write(event.text); }
  void Show(const client::SavedNode& event);
  void Show(const client::GenerateFinished& event);
  void Write(const std::string& text);

  const Console& console_;
  std::optional<int> sample_;
  bool show_pending_ = false;
  bool name_session_ = true;
  bool line_is_open_ = false;
};

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_GENERATION_PRINTER_H_
