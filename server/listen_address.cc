#include "server/listen_address.h"

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace quicksave::server {

absl::StatusOr<ListenAddress> ParseListenAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  ListenAddress address;
  if (colon != absl::string_view::npos) {
    address.host = std::string(text.substr(0, colon));
    const absl::string_view port = text.substr(colon + 1);
    const bool bracketed = absl::StartsWith(address.host, "[") && absl::EndsWith(address.host, "]");
    const bool good_host = !address.host.empty() && (bracketed || !absl::StrContains(address.host, ':'));
    if (good_host && absl::SimpleAtoi(port, &address.port) && address.port >= 0 && address.port <= 65535) {
      return address;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not HOST:PORT, such as 127.0.0.1:50333 or [::]:50333"));
}

}  // namespace quicksave::server
