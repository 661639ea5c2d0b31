#ifndef QUICKSAVE_SERVER_SERVER_H_
#define QUICKSAVE_SERVER_SERVER_H_

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "server/server_config.h"

namespace quicksave::server {

// The server of one process:
//
//   Server server(config);
//   absl::Status status = server.Listen();                            // calls get UNAVAILABLE, health NOT_SERVING
//   if (status.ok()) status = server.Load([&] { return stop; });      // calls are served, health SERVING
//   ...
//   server.Stop();                                                    // running calls end, then everything is closed
//
// grpc.health.v1: "" is SERVING from Listen to Stop (liveness); the names of the three services are SERVING while they
// take calls (readiness). One thread uses it.
class Server {
 public:
  explicit Server(ServerConfig config);
  // Stops, without waiting for running calls.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Opens the port and writes the port file. UNAVAILABLE when the port is in use or the file cannot be written;
  // INVALID_ARGUMENT for bad TLS files.
  absl::Status Listen();

  // Loads store and model and lets calls in. Errors are those of LoadCore; CANCELLED once `stopped` says yes.
  absl::Status Load(absl::FunctionRef<bool()> stopped);

  // Refuses new calls, gives those in work the drain timeout to end, then ends them with UNAVAILABLE, and closes the
  // store. Nothing that was acknowledged is lost. Once.
  void Stop();

  // The port, after Listen.
  int port() const { return port_; }

 private:
  struct Parts;

  void SetServing(bool serving);

  const ServerConfig config_;
  std::unique_ptr<Parts> parts_;
  int port_ = 0;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SERVER_H_
