// Turns results of the C interface in rust/quicksave_text.h into values and absl::Status.
#ifndef QUICKSAVE_SERVER_TEXT_RUST_CALL_H_
#define QUICKSAVE_SERVER_TEXT_RUST_CALL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/text/rust/quicksave_text.h"

namespace quicksave::text {

inline quicksave_view ViewOf(absl::string_view text) { return {text.data(), text.size()}; }

// Copies and frees.
inline std::string Take(quicksave_text text) {
  std::string copy(text.data, text.size);
  quicksave_text_free(text);
  return copy;
}

inline std::vector<int32_t> Take(quicksave_ids ids) {
  std::vector<int32_t> copy(ids.data, ids.data + ids.size);
  quicksave_ids_free(ids);
  return copy;
}

// `call(&result, &error)` is a call of the library; `prefix` goes before the message of its failure.
template <typename Raw, typename Call>
auto TakeResult(absl::string_view prefix, Call call) -> absl::StatusOr<decltype(Take(Raw()))> {
  Raw result{};
  quicksave_text error{};
  const int32_t code = call(&result, &error);
  if (code != 0) return absl::Status(static_cast<absl::StatusCode>(code), absl::StrCat(prefix, Take(error)));
  return Take(result);
}

}  // namespace quicksave::text

#endif  // QUICKSAVE_SERVER_TEXT_RUST_CALL_H_
