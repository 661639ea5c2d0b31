#ifndef QUICKSAVE_SERVER_LISTEN_ADDRESS_H_
#define QUICKSAVE_SERVER_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quicksave::server {

struct ListenAddress {
  std::string host;  // a name, an IPv4 address, or an IPv6 address in brackets
  int port = 0;      // 0: any free one
};

// "127.0.0.1:50333", "[::1]:0", "localhost:50333". INVALID_ARGUMENT for anything else.
absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text);

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_LISTEN_ADDRESS_H_
