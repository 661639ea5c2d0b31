// Prints the library's version, and the error that a call gives where no server listens.

#include <iostream>

#include "quicksave/client.h"
#include "quicksave/version.h"

namespace qs = quicksave::client;

int main() {
  std::cout << "quicksave " << qs::Version() << "\n";
  qs::ClientOptions options;
  options.endpoint = "127.0.0.1:1";
  const absl::StatusOr<qs::Client> client = qs::Client::Connect(options);
  if (!client.ok()) {
    std::cout << "cannot make a client: " << client.status() << "\n";
    return 1;
  }
  const absl::StatusOr<qs::ServerStatus> status = client->GetStatus();
  std::cout << status.status() << "\n";
  return status.ok() ? 1 : 0;
}
