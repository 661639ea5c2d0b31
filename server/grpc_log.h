#ifndef QUICKSAVE_SERVER_GRPC_LOG_H_
#define QUICKSAVE_SERVER_GRPC_LOG_H_

namespace quicksave::server {

// Makes gRPC's own messages, warnings and errors, lines of our log. Call before gRPC is used.
void RouteGrpcLog();

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_GRPC_LOG_H_
