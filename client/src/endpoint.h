// What an endpoint's text says.

#ifndef QUICKSAVE_CLIENT_SRC_ENDPOINT_H_
#define QUICKSAVE_CLIENT_SRC_ENDPOINT_H_

#include "absl/strings/string_view.h"

namespace quicksave::client {

// Returns whether what is sent to the endpoint stays on this machine: loopback addresses, `localhost`, Unix sockets.
bool IsLocalEndpoint(absl::string_view endpoint);

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_ENDPOINT_H_
