// TLS and client certificates over the real wire, with certificates made for this run.

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "client/testing/fake_server.h"
#include "gtest/gtest.h"
#include "quicksave/client.h"

namespace quicksave::client {
namespace {

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

class TlsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = ::testing::TempDir() + "/quicksave_tls_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    for (const char* name : {"server", "client"}) {
      const std::string command = absl::StrCat(
          OPENSSL_PROGRAM, " req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=", name,
          " -addext subjectAltName=DNS:", name, ".test -keyout ", folder_, "/", name, ".key -out ", folder_, "/", name,
          ".pem 2>/dev/null");
      ASSERT_EQ(std::system(command.c_str()), 0) << command;
    }
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::string Pem(const std::string& file) { return ReadFile(folder_ + "/" + file); }

  // A server that asks for the client's certificate when `mutual`.
  static std::shared_ptr<grpc::ServerCredentials> ServerCredentials(bool mutual) {
    grpc::SslServerCredentialsOptions options(mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                                     : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
    options.pem_key_cert_pairs.push_back({Pem("server.key"), Pem("server.pem")});
    if (mutual) options.pem_root_certs = Pem("client.pem");
    return grpc::SslServerCredentials(options);
  }

  static ClientOptions Options(const FakeServer& server) {
    ClientOptions options = server.Options();
    options.retry.max_attempts = 1;
    options.credentials.use_tls = true;
    options.credentials.tls.root_certificates = Pem("server.pem");
    options.credentials.tls.server_name = "server.test";
    return options;
  }

  static absl::Status Call(const ClientOptions& options) {
    return Client::Connect(options).value().GetStatus({.timeout = absl::Seconds(20)}).status();
  }

  static std::string folder_;
};

std::string TlsTest::folder_;

TEST_F(TlsTest, TrustedServerIsUsed) {
  const FakeServer server(ServerCredentials(/*mutual=*/false));
  EXPECT_TRUE(Call(Options(server)).ok()) << Call(Options(server));
}

TEST_F(TlsTest, ServerOfAnotherAuthorityOrNameIsRefused) {
  const FakeServer server(ServerCredentials(/*mutual=*/false));
  ClientOptions stranger = Options(server);
  stranger.credentials.tls.root_certificates = Pem("client.pem");
  EXPECT_EQ(Call(stranger).code(), absl::StatusCode::kUnavailable);
  ClientOptions other_name = Options(server);
  other_name.credentials.tls.server_name = "other.test";
  EXPECT_EQ(Call(other_name).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(server.Requests().empty());
}

TEST_F(TlsTest, ClientCertificateIsSentWhenAskedFor) {
  const FakeServer server(ServerCredentials(/*mutual=*/true));
  ClientOptions options = Options(server);
  EXPECT_EQ(Call(options).code(), absl::StatusCode::kUnavailable);
  options.credentials.tls.client_certificate = Pem("client.pem");
  options.credentials.tls.client_key = Pem("client.key");
  EXPECT_TRUE(Call(options).ok()) << Call(options);
}

TEST_F(TlsTest, PlainTextIsNotSpokenWithATlsServer) {
  const FakeServer server(ServerCredentials(/*mutual=*/false));
  ClientOptions options = server.Options();
  options.retry.max_attempts = 1;
  EXPECT_EQ(Call(options).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace quicksave::client
