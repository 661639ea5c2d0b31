#include "quicksave/options.h"

#include <cstdlib>

namespace quicksave::client {

std::string DefaultEndpoint() {
  const char* endpoint = std::getenv("QUICKSAVE_ENDPOINT");
  return endpoint != nullptr && *endpoint != '\0' ? endpoint : "127.0.0.1:50333";
}

}  // namespace quicksave::client
