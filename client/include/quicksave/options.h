// How a client reaches its server: address, credentials, time limits, retries.

#ifndef QUICKSAVE_OPTIONS_H_
#define QUICKSAVE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace quicksave::client {

// TLS. All values are PEM text, not file names.
struct TlsOptions {
  // Certificates of the authorities that are trusted; empty takes the system's.
  std::string root_certificates;
  // Certificate chain and private key of this client, for servers that ask for one; both or neither.
  std::string client_certificate;
  std::string client_key;
  // Name to expect in the server's certificate, when it is not the endpoint's.
  std::string server_name;
};

// How a client proves who it is. The default is an unencrypted connection without identity.
struct Credentials {
  // Encrypt the connection, as `tls` says.
  bool use_tls = false;
  TlsOptions tls;
  // Sent with each call as `authorization: Bearer TOKEN`; empty sends none. Without TLS it is refused unless the
  // endpoint is this machine or `allow_plaintext_token` is set.
  std::string bearer_token;
  bool allow_plaintext_token = false;
};

// When and how often a safe call is tried again: reads always, changes when their request_id, or their
// nature, makes them repeatable.
// Retried are UNAVAILABLE, RESOURCE_EXHAUSTED when the server says with RetryInfo after what time to come back, and
// ABORTED with reason REQUEST_IN_PROGRESS: the server still works on an earlier attempt.
// The wait before attempt n + 1 is random between half of and the whole min(initial * multiplier^(n - 1), maximum).
struct RetryPolicy {
  // Most attempts of a call, the first included; 1 never retries.
  int max_attempts = 4;
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double backoff_multiplier = 2;
};

// Returns environment variable QUICKSAVE_ENDPOINT, or "127.0.0.1:50333" when that is not set or empty.
std::string DefaultEndpoint();

struct ClientOptions {
  // `host:port`, `[ipv6]:port`, or a target that gRPC knows, such as `unix:/run/quicksave.sock` or `dns:///host:port`.
  std::string endpoint = DefaultEndpoint();
  Credentials credentials;
  // Time limit of a call that sets none; Generate and EncodeNode, which compute for long, take the second.
  absl::Duration timeout = absl::Seconds(60);
  absl::Duration generate_timeout = absl::Minutes(10);
  RetryPolicy retry;
  // Put before gRPC's own in the user-agent of each call.
  std::string user_agent;
  // Largest answer that is accepted, in bytes. A Score of many tokens with top_k 1,000 has some 25 kB for each token.
  int64_t max_receive_bytes = int64_t{256} << 20;
};

}  // namespace quicksave::client

#endif  // QUICKSAVE_OPTIONS_H_
