#ifndef QUICKSAVE_SERVER_TEXT_CONSTRAINT_H_
#define QUICKSAVE_SERVER_TEXT_CONSTRAINT_H_

#include <string>
#include <vector>

namespace quicksave::text {

// What a text is held to. Its meaning is llguidance's, see docs/constraints.md.
struct Constraint {
  enum class Kind { kJsonSchema, kRegex, kChoices, kLark };

  Kind kind = Kind::kRegex;
  // The choices; of the other kinds, one text.
  std::vector<std::string> texts;

  friend bool operator==(const Constraint&, const Constraint&) = default;
};

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_CONSTRAINT_H_
