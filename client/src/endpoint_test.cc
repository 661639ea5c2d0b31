#include "client/src/endpoint.h"

#include "gtest/gtest.h"

namespace quicksave::client {
namespace {

TEST(EndpointTest, LoopbackAndUnixSocketsAreLocal) {
  for (const char* endpoint : {"127.0.0.1:50333", "127.1.2.3:1", "localhost:1", "[::1]:50333", "dns:///localhost:1",
                               "ipv4:127.0.0.1:1", "unix:/run/quicksave.sock", "unix:///run/quicksave.sock"}) {
    EXPECT_TRUE(IsLocalEndpoint(endpoint)) << endpoint;
  }
}

TEST(EndpointTest, OthersAreNot) {
  for (const char* endpoint : {"10.0.0.1:1", "example.com:127", "localhost.example.com:1", "127.example.com:1",
                               "127.0.0.1.example.com:1", "[2001:db8::1]:1", "dns:///example.com:1", ""}) {
    EXPECT_FALSE(IsLocalEndpoint(endpoint)) << endpoint;
  }
}

}  // namespace
}  // namespace quicksave::client
