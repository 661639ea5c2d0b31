// Tables in plain text: aligned columns, the last one cut to the width of the console.

#ifndef QUICKSAVE_CLIENT_CLI_TEXT_TABLE_H_
#define QUICKSAVE_CLIENT_CLI_TEXT_TABLE_H_

#include <string>
#include <utility>
#include <vector>

#include "client/cli/console.h"

namespace quicksave::cli {

class TextTable {
 public:
  enum class Align { kLeft, kRight };
  // What gives way in the last column when it is too wide.
  enum class Cut { kEnd, kStart };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
    Style style = Style::kPlain;
  };

  explicit TextTable(std::vector<Column> columns, Cut cut = Cut::kEnd) : columns_(std::move(columns)), cut_(cut) {}

  // Adds a row with a printable line for each column.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }

  // Returns the columns that all but the last take, gaps included, when `rows` (of cells for those) are added.
  int WidthBeforeLast(const std::vector<std::vector<std::string>>& rows) const;

  // Returns the table with a header line, each line ended by a line end and without spaces at its end.
  std::string Render(const Console& console) const;

 private:
  // Widths of the columns when none is cut.
  std::vector<int> NaturalWidths(const std::vector<std::vector<std::string>>& rows) const;

  std::vector<Column> columns_;
  Cut cut_;
  std::vector<std::vector<std::string>> rows_;
};

// Returns lines of `key  value`, the values aligned. Values are printed as they are.
std::string RenderFields(const std::vector<std::pair<std::string, std::string>>& fields, const Console& console);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_TEXT_TABLE_H_
