#include "client/cli/tree_view.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/cli/encoding_text.h"
#include "client/cli/json_output.h"
#include "client/cli/text_format.h"
#include "client/cli/text_table.h"

namespace quicksave::cli {
namespace {

using client::Edge;
using client::EdgeType;
using client::Node;

constexpr int kShortestId = 8;
constexpr int kNarrowestText = 24;
// Columns that a level of the tree takes.
constexpr int kIndent = 3;
// Trees indented further than this part of the width are drawn compact.
constexpr double kIndentShare = 0.35;

std::string Id(const std::string& name) { return std::string(absl::StripPrefix(name, "nodes/")); }

// A row of the drawing: a node and what stands before its id.
struct Row {
  size_t node = 0;
  std::string prefix;
};

// Draws a forest of nodes, given by index, without recursion, so that long chains do no harm.
class Forest {
 public:
  explicit Forest(const std::vector<Node>& nodes) : nodes_(nodes), children_(nodes.size()) {
    std::map<std::string, size_t> index;
    for (size_t i = 0; i < nodes.size(); ++i) index.emplace(nodes[i].name, i);
    for (size_t i = 0; i < nodes.size(); ++i) {
      const auto parent = nodes[i].parents.empty() ? index.end() : index.find(nodes[i].parents[0].parent);
      if (parent == index.end() || parent->second == i) {
        roots_.push_back(i);
      } else {
        children_[parent->second].push_back(i);
      }
    }
    for (auto& children : children_) Sort(&children);
    Sort(&roots_);
  }

  // Returns the most edges from a root to a node.
  int Depth() const {
    int depth = -1;
    for (std::vector<size_t> level = roots_; !level.empty(); ++depth) {
      std::vector<size_t> below;
      for (const size_t node : level) below.insert(below.end(), children_[node].begin(), children_[node].end());
      level = std::move(below);
    }
    return depth;
  }

  std::vector<Row> Draw(bool unicode, bool compact) const {
    std::vector<Row> rows;
    std::vector<bool> drawn(nodes_.size(), false);
    for (const size_t root : roots_) DrawFrom(root, unicode, compact, &drawn, &rows);
    // Whatever no root reaches goes in a circle.
    for (size_t i = 0; i < nodes_.size(); ++i) {
      if (!drawn[i]) DrawFrom(i, unicode, compact, &drawn, &rows);
    }
    return rows;
  }

 private:
  // A row to draw, and what the rows of its descendants begin with.
  struct Pending {
    Row row;
    std::string below;
  };

  void Sort(std::vector<size_t>* indices) const {
    std::sort(indices->begin(), indices->end(), [this](size_t a, size_t b) {
      return std::tie(nodes_[a].create_time, nodes_[a].name) < std::tie(nodes_[b].create_time, nodes_[b].name);
    });
  }

  void DrawFrom(size_t root, bool unicode, bool compact, std::vector<bool>* drawn, std::vector<Row>* rows) const {
    std::vector<Pending> stack = {{.row = {.node = root}}};
    while (!stack.empty()) {
      const Pending next = std::move(stack.back());
      stack.pop_back();
      if ((*drawn)[next.row.node]) continue;
      (*drawn)[next.row.node] = true;
      rows->push_back(next.row);
      const std::vector<size_t>& children = children_[next.row.node];
      for (size_t i = children.size(); i-- > 0;) {
        stack.push_back(compact && children.size() == 1
                            ? Pending{.row = {.node = children[i], .prefix = next.below}, .below = next.below}
                            : Indented(children[i], next.below, i + 1 == children.size(), unicode));
      }
    }
  }

  static Pending Indented(size_t node, const std::string& below, bool last, bool unicode) {
    const char* branch = unicode ? (last ? "└─ " : "├─ ") : (last ? "`- " : "|- ");
    const char* trunk = last ? "   " : (unicode ? "│  " : "|  ");
    return {.row = {.node = node, .prefix = absl::StrCat(below, branch)}, .below = absl::StrCat(below, trunk)};
  }

  const std::vector<Node>& nodes_;
  std::vector<std::vector<size_t>> children_;
  std::vector<size_t> roots_;
};

std::string EdgeText(const Node& node) {
  if (node.parents.empty()) return "root";
  const Edge& edge = node.parents[0];
  const bool leaves_early = edge.type == EdgeType::kCounterfactual || edge.type == EdgeType::kIntervention;
  return leaves_early ? absl::StrCat(EdgeTypeName(edge.type), "@", edge.at_token) : EdgeTypeName(edge.type);
}

std::string OtherParents(const Node& node) {
  std::vector<std::string> ids;
  for (size_t i = 1; i < node.parents.size(); ++i) ids.push_back(Id(node.parents[i].parent).substr(0, kShortestId));
  return ids.empty() ? "" : absl::StrCat("(and ", absl::StrJoin(ids, ", "), ") ");
}

std::string Labels(const Node& node) {
  if (node.labels.empty()) return "";
  return absl::StrCat("[", absl::StrJoin(node.labels, " ", absl::PairFormatter("=")), "] ");
}

std::vector<std::string> CellsBeforeText(const Node& node, const std::string& id) {
  return {id,
          EdgeText(node),
          HumanCount(node.token_count),
          HumanBytes(StoredBytes(node)),
          HumanRatio(StoredRatio(node)),
          absl::StrCat("+", HumanBytes(node.storage.added_bytes))};
}

// Other parents, labels and the text, which is cut at the front: its end says most about it.
std::string Text(const Node& node, int width, const Console& console) {
  const std::string before = OneLine(OtherParents(node) + Labels(node), console.unicode);
  const std::string text = OneLine(node.text_tail, console.unicode);
  const int left = width - DisplayWidth(before);
  return left >= kShortestId ? before + CutStart(text, left, console.unicode) : before;
}

}  // namespace

std::vector<std::string> ShortIds(const std::vector<Node>& nodes) {
  std::vector<std::string> ids;
  for (const Node& node : nodes) ids.push_back(Id(node.name));
  size_t longest = 0;
  for (const std::string& id : ids) longest = std::max(longest, id.size());
  for (size_t size = kShortestId; size < longest; ++size) {
    std::set<std::string> distinct;
    for (const std::string& id : ids) distinct.insert(id.substr(0, size));
    if (distinct.size() == ids.size()) {
      for (std::string& id : ids) id = id.substr(0, size);
      break;
    }
  }
  return ids;
}

std::string RenderTree(const std::vector<Node>& nodes, const Console& console) {
  const Forest forest(nodes);
  const bool compact = forest.Depth() * kIndent > console.width * kIndentShare;
  const std::vector<Row> rows = forest.Draw(console.unicode, compact);
  const std::vector<std::string> ids = ShortIds(nodes);
  std::vector<std::vector<std::string>> cells;
  for (const Row& row : rows) cells.push_back(CellsBeforeText(nodes[row.node], row.prefix + ids[row.node]));

  using Column = TextTable::Column;
  constexpr auto kRight = TextTable::Align::kRight;
  const std::vector<Column> columns = {{.title = "NODE", .style = Style::kYellow},
                                       {.title = "EDGE", .style = Style::kCyan},
                                       {.title = "TOKENS", .align = kRight},
                                       {.title = "SIZE", .align = kRight},
                                       {.title = "RATIO", .align = kRight},
                                       {.title = "ADDED", .align = kRight, .style = Style::kGreen},
                                       {.title = "TEXT"}};
  TextTable table(columns);
  const int text_width = std::max(console.width - table.WidthBeforeLast(cells), kNarrowestText);
  for (size_t i = 0; i < rows.size(); ++i) {
    cells[i].push_back(Text(nodes[rows[i].node], text_width, console));
    table.AddRow(std::move(cells[i]));
  }
  return table.Render(console);
}

}  // namespace quicksave::cli
