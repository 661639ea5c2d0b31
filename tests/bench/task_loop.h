// How a program takes part in the comparison (compare.py): it reads one task per line from standard input and answers
// each with one line on standard output, both JSON. A task is {"task": NAME, ...}; an answer holds figures, or
// {"error": TEXT}.

#ifndef QUICKSAVE_TESTS_BENCH_TASK_LOOP_H_
#define QUICKSAVE_TESTS_BENCH_TASK_LOOP_H_

#include <chrono>
#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace quicksave::bench {

using Json = nlohmann::json;
using TokenIds = std::vector<int32_t>;

// Seconds that `work` takes, by the wall clock.
inline double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Reads a JSON file; throws when there is none.
inline Json ReadJson(const std::string& file) {
  std::ifstream stream(file);
  if (!stream) throw std::runtime_error("cannot read " + file);
  return Json::parse(stream);
}

// Token ids of a benchmark's sequences: the same for every participant, and different for each index.
class Prompts {
 public:
  explicit Prompts(const std::string& file) : ids_(ReadJson(file).get<TokenIds>()) {}

  // The first `length` tokens of sequence `index`: the text of the file, begun at another point.
  TokenIds Sequence(int index, int length) const {
    TokenIds sequence(length);
    for (int i = 0; i < length; ++i) sequence[i] = ids_[(int64_t{index} * kStride + i) % ids_.size()];
    return sequence;
  }

 private:
  static constexpr int kStride = 97;  // compare.py and transformers_bench.py have the same
  TokenIds ids_;
};

// Answers tasks until standard input ends. `ready` is the first line that is written.
inline void ServeTasks(const Json& ready, const std::function<Json(const Json&)>& serve) {
  std::cout << ready.dump() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    Json answer;
    try {
      answer = serve(Json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}

}  // namespace quicksave::bench

#endif  // QUICKSAVE_TESTS_BENCH_TASK_LOOP_H_
