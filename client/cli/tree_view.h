// The thought graph drawn as a tree.

#ifndef QUICKSAVE_CLIENT_CLI_TREE_VIEW_H_
#define QUICKSAVE_CLIENT_CLI_TREE_VIEW_H_

#include <string>
#include <vector>

#include "client/cli/console.h"
#include "quicksave/types.h"

namespace quicksave::cli {

// Returns the ids of the nodes without `nodes/`, each cut to the shortest length, 8 or more, that tells all apart.
std::vector<std::string> ShortIds(const std::vector<client::Node>& nodes);

// Returns a line for each node: its short id in a tree, edge, tokens, stored size, ratio, added bytes, labels and the
// end of its text. Nodes whose parents are not among `nodes` are roots; a node of several parents stands below the
// first and names the others. Children stand in order of time. When a tree is too deep for the width, an only child
// stands directly below its parent instead of indented. Edges that go in a circle are cut.
std::string RenderTree(const std::vector<client::Node>& nodes, const Console& console);

}  // namespace quicksave::cli

#endif  // QUICKSAVE_CLIENT_CLI_TREE_VIEW_H_
