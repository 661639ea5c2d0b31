// grammar_bench MODEL_DIR: times of constraints over a model's vocabulary, as a table in Markdown.

#include <algorithm>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "server/text/grammar.h"

namespace quicksave::text {
namespace {

using Kind = Constraint::Kind;

constexpr int kTokens = 200;

constexpr char kSchema[] =
    R"({"type":"object","properties":{"name":{"type":"string","maxLength":40},"age":{"type":"integer","minimum":0,
    "maximum":150},"email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"enum":["a","b","c"]}}},
    "required":["name","age","tags"],"additionalProperties":false})";
constexpr char kSums[] =
    "start: term ((\"+\" | \"-\") term)*\nterm: atom ((\"*\" | \"/\") atom)*\natom: NUMBER | \"(\" start \")\"\n"
    "NUMBER: /[0-9]+/\n";

std::vector<std::string> ManyChoices() {
  std::vector<std::string> choices;
  for (int i = 0; i < 1000; ++i) choices.push_back(absl::StrFormat("choice number %d of a thousand", i * 7919));
  return choices;
}

// Times of a random walk under the mask, in microseconds.
struct Walk {
  std::vector<int32_t> ids;
  std::vector<double> masks;
  std::vector<double> consumes;
};

Walk RandomWalk(Grammar& grammar) {
  std::mt19937 random(1);
  Walk walk;
  while (walk.ids.size() < kTokens) {
    const absl::Time begin = absl::Now();
    const auto mask = grammar.Mask();
    walk.masks.push_back(absl::ToDoubleMicroseconds(absl::Now() - begin));
    std::vector<int32_t> allowed;
    for (int32_t id = 0; mask.ok() && id < static_cast<int32_t>(mask->size()) * 32; ++id) {
      if (((*mask)[id / 32] >> (id % 32) & 1) != 0) allowed.push_back(id);
    }
    if (allowed.empty()) return walk;
    walk.ids.push_back(allowed[random() % allowed.size()]);
    const absl::Time taken = absl::Now();
    if (!grammar.Consume({walk.ids.back()}).ok()) return walk;
    walk.consumes.push_back(absl::ToDoubleMicroseconds(absl::Now() - taken));
  }
  return walk;
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

void Measure(const Tokenizer& tokenizer, const std::string& name, const Constraint& constraint) {
  const absl::Time begin = absl::Now();
  auto grammar = Grammar::Create(&tokenizer, constraint);
  const absl::Duration compile = absl::Now() - begin;
  if (!grammar.ok()) {
    std::cout << "| " << name << " | " << grammar.status() << " |\n";
    return;
  }
  Walk walk = RandomWalk(**grammar);
  const absl::Time again = absl::Now();
  auto replayed = Grammar::Create(&tokenizer, constraint);
  const bool whole = replayed.ok() && (*replayed)->Consume(walk.ids).ok();
  const absl::Duration resume = absl::Now() - again;
  std::sort(walk.masks.begin(), walk.masks.end());
  std::cout << absl::StrFormat("| %s | %.1f | %d | %.1f | %.1f | %.0f | %.1f | %.1f%s |\n", name,
                               absl::ToDoubleMilliseconds(compile), walk.ids.size(), walk.masks[walk.masks.size() / 2],
                               Mean(walk.masks), walk.masks.back(), Mean(walk.consumes),
                               absl::ToDoubleMilliseconds(resume), whole ? "" : " (failed)");
}

int Run(const std::string& model_dir) {
  const auto tokenizer = Tokenizer::Load(model_dir);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  const absl::Time begin = absl::Now();
  if (const auto first = Grammar::Create(tokenizer->get(), {Kind::kRegex, {"a"}}); !first.ok()) {
    std::cerr << first.status() << "\n";
    return 1;
  }
  std::cout
      << absl::StrFormat("Vocabulary of %d tokens; first constraint: %.0f ms\n\n", (*tokenizer)->vocab_size(),
                         absl::ToDoubleMilliseconds(absl::Now() - begin))
      << "| constraint | compile, ms | tokens | mask: median, us | mean | most | consume, us | compile and replay, "
         "ms |\n|---|---|---|---|---|---|---|---|\n";
  Measure(**tokenizer, "`[0-9]{3}-[0-9]{4}`", {Kind::kRegex, {"[0-9]{3}-[0-9]{4}"}});
  Measure(**tokenizer, "any text", {Kind::kRegex, {"(?s:.*)"}});
  Measure(**tokenizer, "schema of a person", {Kind::kJsonSchema, {kSchema}});
  Measure(**tokenizer, "any JSON", {Kind::kJsonSchema, {"{}"}});
  Measure(**tokenizer, "1,000 choices", {Kind::kChoices, ManyChoices()});
  Measure(**tokenizer, "Lark, sums", {Kind::kLark, {kSums}});
  Measure(**tokenizer, "`.*a.{200}` (hard)", {Kind::kRegex, {".*a.{200}"}});
  Measure(**tokenizer, "Lark, ambiguous (hard)", {Kind::kLark, {"start: s\ns: s s s | s s | \"a\" | \"aa\"\n"}});
  return 0;
}

}  // namespace
}  // namespace quicksave::text

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: grammar_bench MODEL_DIR\n";
    return 2;
  }
  return quicksave::text::Run(argv[1]);
}
