#include "client/cli/text_table.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli/text_format.h"

namespace quicksave::cli {
namespace {

constexpr int kGap = 2;
constexpr int kNarrowestLastColumn = 12;

std::string Spaces(int count) { return std::string(std::max(count, 0), ' '); }

}  // namespace

std::vector<int> TextTable::NaturalWidths(const std::vector<std::vector<std::string>>& rows) const {
  std::vector<int> widths;
  for (const Column& column : columns_) widths.push_back(DisplayWidth(column.title));
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  return widths;
}

int TextTable::WidthBeforeLast(const std::vector<std::vector<std::string>>& rows) const {
  const std::vector<int> widths = NaturalWidths(rows);
  return std::accumulate(widths.begin(), widths.end() - 1, kGap * static_cast<int>(widths.size() - 1));
}

std::string TextTable::Render(const Console& console) const {
  std::vector<int> widths = NaturalWidths(rows_);
  widths.back() = std::min(widths.back(), std::max(console.width - WidthBeforeLast(rows_), kNarrowestLastColumn));
  std::string text;
  const auto add_line = [&](const std::vector<std::string>& cells, bool header) {
    std::string line, pad;
    for (size_t i = 0; i < cells.size(); ++i) {
      const bool last = i + 1 == cells.size();
      std::string cell = cells[i];
      if (last) {
        cell =
            cut_ == Cut::kEnd ? CutEnd(cell, widths[i], console.unicode) : CutStart(cell, widths[i], console.unicode);
      }
      const std::string fill = Spaces(widths[i] - DisplayWidth(cell));
      const std::string shown = console.Styled(cell, header ? Style::kDim : columns_[i].style);
      const bool right = columns_[i].align == Align::kRight;
      // Spaces go out only before more text, so that no line ends with them.
      if (right) pad += fill;
      if (!cell.empty()) {
        absl::StrAppend(&line, pad, shown);
        pad.clear();
      }
      if (!right) pad += fill;
      pad += Spaces(kGap);
    }
    absl::StrAppend(&text, line, "\n");
  };
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  add_line(titles, true);
  for (const auto& row : rows_) add_line(row, false);
  return text;
}

std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields, const Console& console) {
  int width = 0;
  for (const auto& [key, value] : fields) width = std::max(width, DisplayWidth(key));
  std::string text;
  for (const auto& [key, value] : fields) {
    absl::StrAppend(&text, console.Styled(key, Style::kDim), Spaces(width - DisplayWidth(key) + kGap), value, "\n");
  }
  return text;
}

}  // namespace quicksave::cli
