// Tells whether a message sets every field that its type has, so that a test of a translation notices new fields.

#ifndef QUICKSAVE_CLIENT_TESTING_MESSAGE_FIELDS_H_
#define QUICKSAVE_CLIENT_TESTING_MESSAGE_FIELDS_H_

#include <string>
#include <vector>

#include "google/protobuf/message.h"

namespace quicksave::client {

// Returns the paths of fields that have their default value, in messages inside too. A oneof counts as set when any of
// its members is.
std::vector<std::string> UnsetFields(const google::protobuf::Message& message, const std::string& path = "");

}  // namespace quicksave::client

#endif  // QUICKSAVE_CLIENT_TESTING_MESSAGE_FIELDS_H_
