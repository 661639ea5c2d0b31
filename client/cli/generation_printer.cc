#include "client/cli/generation_printer.h"

#include "absl/strings/str_cat.h"
#include "client/cli/json_output.h"
#include "client/cli/reports.h"
#include "client/cli/text_format.h"

namespace quicksave::cli {

bool GenerationPrinter::operator()(const client::GenerateEvent& event) {
  if (console_.json) {
    Json json = ToJson(event);
    if (sample_) json["sample"] = *sample_;
    console_.out << Line(json) << std::flush;
  } else {
    std::visit([this](const auto& one) { Show(one); }, event);
  }
  return true;
}

void GenerationPrinter::End() {
  if (line_is_open_) console_.out << std::endl;
  line_is_open_ = false;
}

void GenerationPrinter::Show(const client::GenerateStarted& event) {
  if (event.proof) console_.Note(absl::StrCat("restored: ", ProofLine(*event.proof)));
  if (const std::string line = PrefixLine(event); !line.empty()) console_.Note(line);
}

void GenerationPrinter::Show(const client::SavedNode& event) {
  End();
  console_.Note(SavedLine(event));
}

void GenerationPrinter::Show(const client::GenerateFinished& event) {
  if (show_pending_) Write(event.pending_text);
  End();
  console_.Note(FinishedLine(event));
  if (name_session_ && !event.session.empty()) console_.Note(absl::StrCat("session ", event.session, " is kept"));
}

void GenerationPrinter::Write(const std::string& text) {
  if (text.empty()) return;
  console_.out << (console_.out_is_terminal ? WithoutControls(text) : text) << std::flush;
  line_is_open_ = text.back() != '\n';
}

}  // namespace quicksave::cli
