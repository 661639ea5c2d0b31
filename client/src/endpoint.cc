#include "client/src/endpoint.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace quicksave::client {
namespace {

// Returns whether the text is an IPv4 address, not a name that merely begins like one ("127.example.org").
bool IsDottedNumber(absl::string_view host) {
  return std::all_of(host.begin(), host.end(), [](char c) { return absl::ascii_isdigit(c) || c == '.'; });
}

}  // namespace

bool IsLocalEndpoint(absl::string_view endpoint) {
  if (absl::StartsWith(endpoint, "unix:") || absl::StartsWith(endpoint, "unix-abstract:")) return true;
  for (const absl::string_view scheme : {"dns:///", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::ConsumePrefix(&endpoint, scheme)) break;
  }
  if (absl::StartsWith(endpoint, "[")) return absl::StartsWith(endpoint, "[::1]");
  const absl::string_view host = endpoint.substr(0, endpoint.rfind(':'));
  return host == "localhost" || (absl::StartsWith(host, "127.") && IsDottedNumber(host));
}

}  // namespace quicksave::client
