// Begins a story, saves it and goes on from the saved state twice. The server is at QUICKSAVE_ENDPOINT or
// 127.0.0.1:50333.

#include <cstdlib>
#include <iostream>

#include "quicksave/client.h"

namespace qs = quicksave::client;

int main() {
  const qs::Client client = qs::Client::Connect().value();
  std::string node;
  const auto print = [&node](const qs::GenerateEvent& event) {
    if (const auto* delta = std::get_if<qs::GenerateDelta>(&event)) std::cout << delta->text << std::flush;
    if (const auto* saved = std::get_if<qs::SavedNode>(&event)) node = saved->node.name;
    return true;  // false would cancel
  };
  absl::Status status = client.Generate({.input = "Once upon a time", .save = qs::SaveOptions()}, print).status();
  for (uint64_t seed = 1; status.ok() && seed <= 2; ++seed) {
    std::cout << "\n--- from " << node << " with seed " << seed << "\n";
    status =
        client.Generate({.start = qs::FromNode{node}, .sampling = {.temperature = 0.8f, .seed = seed}}, print).status();
  }
  std::cout << "\n" << status << "\n";
  return status.ok() ? EXIT_SUCCESS : EXIT_FAILURE;
}
