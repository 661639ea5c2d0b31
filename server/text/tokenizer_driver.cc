// Runs the text library on requests from standard input, for compare_tokenizer.py to compare with Python.
//
//   tokenizer_driver MODEL_DIR < requests > answers
//
// Numbers are 4 bytes, little endian. A request is one letter and its fields, a text is its length in bytes and the
// bytes. Answers come in the order of the requests, each as 0 and the result, or the status code and the message.
//   'E' flags text                   encode; flags: 1 add special tokens, 2 parse special. Answer: count, ids.
//   'D' flags count ids              decode; flags: 1 skip special. Answer: text.
//   'R' flags count (role content)*  render and encode messages; flags: 1 generation prompt, 2 continuation.
//                                    Answer: text, count, ids.
//   'T' text                         the chat template of another directory is used from now on. Answer: nothing.
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"

namespace quicksave::text {
namespace {

// What strftime_now shows, here and in compare_tokenizer.py.
const absl::Time kNow = absl::FromUnixSeconds(1700000000);

uint32_t ReadNumber() {
  unsigned char bytes[4] = {};
  std::cin.read(reinterpret_cast<char*>(bytes), 4);
  return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

std::string ReadText() {
  std::string text(ReadNumber(), '\0');
  std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
  return text;
}

void Write(uint32_t number) {
  for (int shift = 0; shift < 32; shift += 8) std::cout.put(static_cast<char>(number >> shift & 0xFF));
}

void Write(const std::string& text) {
  Write(static_cast<uint32_t>(text.size()));
  std::cout << text;
}

void Write(const std::vector<int32_t>& ids) {
  Write(static_cast<uint32_t>(ids.size()));
  for (const int32_t id : ids) Write(static_cast<uint32_t>(id));
}

void Write(const absl::Status& status) {
  Write(static_cast<uint32_t>(status.code()));
  if (!status.ok()) Write(std::string(status.message()));
}

template <typename T>
void Write(const absl::StatusOr<T>& result) {
  Write(result.status());
  if (result.ok()) Write(*result);
}

class Driver {
 public:
  absl::Status Load(const std::string& model_dir) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(model_dir);
    if (!tokenizer.ok()) return tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    return LoadTemplate(model_dir);
  }

  void Run() {
    for (int request = std::cin.get(); request != EOF; request = std::cin.get()) {
      if (request == 'E') Encode();
      if (request == 'D') Decode();
      if (request == 'R') Render();
      if (request == 'T') Write(LoadTemplate(ReadText()));
    }
    std::cout.flush();
  }

 private:
  absl::Status LoadTemplate(const std::string& model_dir) {
    absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Load(model_dir);
    if (!chat_template.ok()) return chat_template.status();
    chat_template_ = *std::move(chat_template);
    return absl::OkStatus();
  }

  void Encode() const {
    const uint32_t flags = ReadNumber();
    Write(tokenizer_->Encode(ReadText(), (flags & 1) != 0, (flags & 2) != 0));
  }

  void Decode() const {
    const uint32_t flags = ReadNumber();
    std::vector<int32_t> ids(ReadNumber());
    for (int32_t& id : ids) id = static_cast<int32_t>(ReadNumber());
    Write(tokenizer_->Decode(ids, (flags & 1) != 0));
  }

  void Render() const {
    const uint32_t flags = ReadNumber();
    std::vector<ChatMessage> messages(ReadNumber());
    for (ChatMessage& message : messages) {
      message.role = ReadText();
      message.content = ReadText();
    }
    const bool prompt = (flags & 1) != 0;
    const bool continuation = (flags & 2) != 0;
    const auto text = continuation ? chat_template_->RenderContinuation(messages, prompt, kNow)
                                   : chat_template_->Render(messages, prompt, kNow);
    Write(text);
    if (!text.ok()) return;
    const auto ids = continuation ? chat_template_->EncodeContinuation(*tokenizer_, messages, prompt, kNow)
                                  : chat_template_->Encode(*tokenizer_, messages, prompt, kNow);
    Write(ids);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
};

int Main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenizer_driver MODEL_DIR\n";
    return 2;
  }
  std::ios::sync_with_stdio(false);
  Driver driver;
  const absl::Status status = driver.Load(argv[1]);
  if (!status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  driver.Run();
  return 0;
}

}  // namespace
}  // namespace quicksave::text

int main(int argc, char** argv) { return quicksave::text::Main(argc, argv); }
