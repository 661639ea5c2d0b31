// Generates, saves and goes on: `quickstart` against a server at QUICKSAVE_ENDPOINT or 127.0.0.1:50333.

#include <iostream>

#include "quicksave/client.h"

namespace qs = quicksave::client;

int main() {
  const auto client = qs::Client::Connect();
  if (!client.ok()) return std::cerr << client.status() << "\n", 1;
  std::string node;
  const auto print = [&](const qs::GenerateEvent& event) {
    if (const auto* delta = std::get_if<qs::GenerateDelta>(&event)) std::cout << delta->text << std::flush;
    if (const auto* saved = std::get_if<qs::SavedNode>(&event)) node = saved->node.name;
    return true;
  };
  auto done =
      client->Generate({.input = "Once upon a time", .stop = {.max_tokens = 20}, .save = qs::SaveOptions()}, print);
  if (!done.ok()) return std::cerr << done.status() << "\n", 1;
  done = client->Generate({.start = qs::FromNode{.name = node}, .stop = {.max_tokens = 20}}, print);
  if (!done.ok()) return std::cerr << done.status() << "\n", 1;
  std::cout << "\nsaved as " << node << "\n";
}
