// Random identifiers of requests.

#ifndef QUICKSAVE_CLIENT_SRC_REQUEST_ID_H_
#define QUICKSAVE_CLIENT_SRC_REQUEST_ID_H_

#include <string>

namespace quicksave::client {

// Returns a new random UUID (version 4, RFC 4122) in lower case. Thread-safe.
std::string MakeRequestId();

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_SRC_REQUEST_ID_H_
