#include "client/testing/message_fields.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"

namespace quicksave::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

bool IsSet(const Message& message, const FieldDescriptor* field) {
  if (field->is_repeated()) return message.GetReflection()->FieldSize(message, field) > 0;
  if (field->real_containing_oneof() != nullptr) {
    return message.GetReflection()->HasOneof(message, field->real_containing_oneof());
  }
  return message.GetReflection()->HasField(message, field);
}

}  // namespace

std::vector<std::string> UnsetFields(const Message& message, const std::string& path) {
  std::vector<std::string> unset;
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = message.GetDescriptor()->field(i);
    const std::string name = absl::StrCat(path, field->name());
    if (!IsSet(message, field)) {
      unset.push_back(name);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map()) {
      if (!field->is_repeated() && !reflection->HasField(message, field)) continue;  // Another member of its oneof.
      const Message& inner = field->is_repeated() ? reflection->GetRepeatedMessage(message, field, 0)
                                                  : reflection->GetMessage(message, field);
      if (inner.GetDescriptor()->file()->package() == "google.protobuf") continue;
      for (std::string& one : UnsetFields(inner, absl::StrCat(name, "."))) unset.push_back(std::move(one));
    }
  }
  return unset;
}

}  // namespace quicksave::client
