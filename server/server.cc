#include "server/server.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.pb.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/health_check_service_interface.h"
#include "server/core_loader.h"
#include "server/encoding_keeper.h"
#include "server/housekeeper.h"
#include "server/listen_address.h"
#include "server/service/admin_service.h"
#include "server/service/call_runner.h"
#include "server/service/graph_service.h"
#include "server/service/snapshot_service.h"
#include "server/telemetry/logging.h"

namespace quicksave::server {
namespace {

// After all of our calls have ended: for answers on their way, and streams of health and reflection.
constexpr absl::Duration kGrace = absl::Seconds(1);

constexpr char const* kServices[] = {"quicksave.v1.SnapshotService", "quicksave.v1.GraphService",
                                     "quicksave.v1.AdminService"};

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  if (file) content << file.rdbuf();
  if (!file || content.str().empty()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  return content.str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const ServerConfig& config) {
  if (config.tls_cert.empty()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options;
  const absl::StatusOr<std::string> key = ReadFile(config.tls_key);
  if (!key.ok()) return key.status();
  const absl::StatusOr<std::string> certificate = ReadFile(config.tls_cert);
  if (!certificate.ok()) return certificate.status();
  options.pem_key_cert_pairs.push_back({*key, *certificate});
  if (!config.tls_client_ca.empty()) {
    const absl::StatusOr<std::string> authorities = ReadFile(config.tls_client_ca);
    if (!authorities.ok()) return authorities.status();
    options.pem_root_certs = *authorities;
    options.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  }
  return grpc::SslServerCredentials(options);
}

void SetLimits(const ServerConfig& config, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, config.max_concurrent_streams);
  // Two servers on one port would take turns.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Finds dead peers; idle clients may ping and stay.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
}

// Whoever waits for the file sees all of it or nothing.
absl::Status WritePortFile(const std::string& path, int port) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  std::ofstream file(temporary);
  file << port << "\n";
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (file && !error) return absl::OkStatus();
  std::filesystem::remove(temporary, error);
  return absl::UnavailableError(absl::StrCat("cannot write the port file ", path));
}

}  // namespace

// In the order in which they need each other: the last is destroyed first.
struct Server::Parts {
  std::unique_ptr<Core> core;
  CallRunner runner;
  SnapshotServiceImpl snapshot_service{&runner};
  GraphServiceImpl graph_service{&runner};
  AdminServiceImpl admin_service{&runner};
  std::unique_ptr<grpc::Server> grpc;
  std::unique_ptr<Housekeeper> housekeeper;
  std::unique_ptr<EncodingKeeper> encoding_keeper;
};

Server::Server(ServerConfig config) : config_(std::move(config)), parts_(std::make_unique<Parts>()) {}

Server::~Server() {
  if (parts_->grpc == nullptr) return;
  parts_->runner.Close();
  if (parts_->core != nullptr) parts_->core->scheduler->Shutdown();
  parts_->grpc->Shutdown(absl::ToChronoTime(absl::Now()));
}

absl::Status Server::Listen() {
  const absl::StatusOr<ListenAddress> address = ParseListenAddress(config_.listen);
  if (!address.ok()) return address.status();
  absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> credentials = Credentials(config_);
  if (!credentials.ok()) return credentials.status();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // gRPC's own health service works without its proto; this links it, so that reflection can describe the service.
  grpc::health::v1::HealthCheckRequest::descriptor();
  grpc::ServerBuilder builder;
  SetLimits(config_, builder);
  builder.AddListeningPort(absl::StrCat(address->host, ":", address->port), *credentials, &port_);
  builder.RegisterService(&parts_->snapshot_service);
  builder.RegisterService(&parts_->graph_service);
  builder.RegisterService(&parts_->admin_service);
  parts_->grpc = builder.BuildAndStart();
  if (parts_->grpc == nullptr || port_ <= 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config_.listen,
                                               ": the port is in use, or the address is not this machine's, or the "
                                               "TLS files do not fit together"));
  }
  SetServing(false);
  LogEvent(spdlog::level::info, "listening",
           {{"address", absl::StrCat(address->host, ":", port_)}, {"tls", config_.tls_cert.empty() ? "off" : "on"}});
  if (config_.port_file.empty()) return absl::OkStatus();
  return WritePortFile(config_.port_file, port_);
}

absl::Status Server::Load(absl::FunctionRef<bool()> stopped) {
  const absl::Time start = absl::Now();
  absl::StatusOr<std::unique_ptr<Core>> core = LoadCore(config_, stopped);
  if (!core.ok()) return core.status();
  parts_->core = *std::move(core);
  parts_->housekeeper = std::make_unique<Housekeeper>(parts_->core.get());
  parts_->encoding_keeper = std::make_unique<EncodingKeeper>(parts_->core.get(), config_.encoding);
  parts_->runner.Open(parts_->core.get());
  SetServing(true);
  LogEvent(spdlog::level::info, "ready", {{"seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  return absl::OkStatus();
}

void Server::Stop() {
  const absl::Time deadline = absl::Now() + config_.drain_timeout;
  if (parts_->grpc != nullptr) {
    parts_->grpc->GetHealthCheckService()->Shutdown();
    parts_->runner.Close();
    const bool drained = parts_->runner.AwaitIdle(deadline);
    LogEvent(drained ? spdlog::level::info : spdlog::level::warn, drained ? "drained" : "calls are cut off", {});
    if (parts_->core != nullptr) parts_->core->scheduler->Shutdown();
    parts_->grpc->Shutdown(absl::ToChronoTime(absl::Now() + kGrace));
    parts_->grpc.reset();
  }
  parts_->encoding_keeper.reset();
  parts_->housekeeper.reset();
  parts_->core.reset();
  LogEvent(spdlog::level::info, "stopped", {});
}

void Server::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = parts_->grpc->GetHealthCheckService();
  for (const char* service : kServices) health->SetServingStatus(service, serving);
}

}  // namespace quicksave::server
