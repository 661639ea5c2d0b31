#include "tests/integration/wire_call.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "quicksave/v1/admin_service.pb.h"
#include "quicksave/v1/graph_service.pb.h"
#include "quicksave/v1/snapshot_service.pb.h"

namespace quicksave::integration {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::MethodDescriptor;
using google::protobuf::TextFormat;

std::vector<const google::protobuf::ServiceDescriptor*> Services() {
  return {v1::GetStatusRequest::descriptor()->file()->service(0), v1::GetNodeRequest::descriptor()->file()->service(0),
          v1::GenerateRequest::descriptor()->file()->service(0)};
}

const MethodDescriptor* FindMethod(const std::string& method) {
  const std::string name = absl::StrCat("quicksave.v1.", absl::StrReplaceAll(method, {{"/", "."}}));
  const MethodDescriptor* found = DescriptorPool::generated_pool()->FindMethodByName(name);
  EXPECT_NE(found, nullptr) << "no method " << name;
  return found;
}

std::unique_ptr<Message> NewMessage(const Descriptor* type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(type)->New());
}

std::string ToBytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

void TakeDetails(const std::string& bytes, WireAnswer* answer) {
  google::rpc::Status status;
  if (!status.ParseFromString(bytes)) return;
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::ErrorInfo info;
    answer->has_retry_info |= detail.Is<google::rpc::RetryInfo>();
    if (!detail.UnpackTo(&info)) continue;
    answer->reason = info.reason();
    answer->domain = info.domain();
    answer->metadata = {info.metadata().begin(), info.metadata().end()};
  }
}

// One call as the steps of gRPC's asynchronous interface, each waited for.
class Steps {
 public:
  Steps(grpc::GenericStub* stub, const std::string& path, const WireOptions& options) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + options.deadline));
    cancel_at_ = absl::Now() + options.cancel_after;
    call_ = stub->PrepareCall(&context_, path, &queue_);
  }
  ~Steps() {
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) continue;
  }

  bool Begin(const grpc::ByteBuffer& request) {
    call_->StartCall(this);
    if (!Wait()) return false;
    call_->WriteLast(request, grpc::WriteOptions(), this);
    return Wait();
  }
  bool Read(grpc::ByteBuffer* response) {
    call_->Read(response, this);
    return Wait();
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  // Returns whether the step succeeded. Cancels the call when its time has come.
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    const auto until = absl::ToChronoTime(cancel_at_);
    if (cancel_at_ != absl::InfiniteFuture() && queue_.AsyncNext(&tag, &ok, until) != grpc::CompletionQueue::TIMEOUT) {
      return ok;
    }
    if (cancel_at_ != absl::InfiniteFuture()) context_.TryCancel();
    cancel_at_ = absl::InfiniteFuture();
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  absl::Time cancel_at_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

}  // namespace

struct WireCaller::Stub {
  explicit Stub(const std::shared_ptr<grpc::Channel>& channel) : generic(channel) {}
  grpc::GenericStub generic;
};

WireCaller::WireCaller(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  stub_ = std::make_unique<Stub>(grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments));
}

WireCaller::~WireCaller() = default;

WireAnswer WireCaller::Call(const std::string& method, const std::string& request, const WireOptions& options) const {
  const std::unique_ptr<Message> message = NewMessage(FindMethod(method)->input_type());
  EXPECT_TRUE(TextFormat::ParseFromString(request, message.get())) << method << " " << request;
  return CallBytes(method, message->SerializeAsString(), options);
}

WireAnswer WireCaller::CallBytes(const std::string& method, const std::string& request,
                                 const WireOptions& options) const {
  const MethodDescriptor* descriptor = FindMethod(method);
  Steps steps(&stub_->generic, absl::StrCat("/quicksave.v1.", method), options);
  const grpc::Slice slice(request);
  WireAnswer answer;
  grpc::ByteBuffer response;
  if (steps.Begin(grpc::ByteBuffer(&slice, 1))) {
    while (steps.Read(&response)) {
      const std::unique_ptr<Message> message = NewMessage(descriptor->output_type());
      EXPECT_TRUE(message->ParseFromString(ToBytes(response)));
      answer.responses.push_back(message->DebugString());
      response.Clear();
    }
  }
  const grpc::Status status = steps.Finish();
  answer.code = static_cast<absl::StatusCode>(status.error_code());
  answer.message = status.error_message();
  TakeDetails(status.error_details(), &answer);
  return answer;
}

std::vector<std::string> WireCaller::Methods() {
  std::vector<std::string> methods;
  for (const google::protobuf::ServiceDescriptor* service : Services()) {
    for (int i = 0; i < service->method_count(); i++) {
      methods.push_back(absl::StrCat(service->name(), "/", service->method(i)->name()));
    }
  }
  return methods;
}

}  // namespace quicksave::integration
