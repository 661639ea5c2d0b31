// The benchmark's tasks on llama.cpp, in this process.
//
// Usage: llama_bench MODEL.gguf PROMPTS.json DIRECTORY
//
// See task_loop.h for how tasks come in. Saved states are written to DIRECTORY. Decoding is greedy; sequences of a
// batch have KV of their own (kv_unified = false), which is llama.cpp's faster way when they share no prefix. The KV
// cache is f16, llama.cpp's default: as many bytes as bf16.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"
#include "tests/bench/task_loop.h"

namespace quicksave::bench {
namespace {

constexpr int kTokensPerSequence = 2304;  // the longest prompt and what is decoded after it
constexpr int kTokensPerBatch = 2048;     // llama.cpp's default
constexpr int kBranches = 64;

struct Deleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

// Forces a file's bytes to the disk.
void SyncFile(const std::string& file) {
  const int descriptor = open(file.c_str(), O_RDONLY);
  const bool ok = descriptor >= 0 && fsync(descriptor) == 0;
  if (descriptor >= 0) close(descriptor);
  if (!ok) throw std::runtime_error("cannot sync " + file);
}

// A context and the batch that is fed to it.
class Decoder {
 public:
  Decoder(llama_model* model, int sequences, bool unified)
      : batch_(llama_batch_init(std::max(kTokensPerBatch, sequences), 0, 1)),
        vocab_size_(llama_vocab_n_tokens(llama_model_get_vocab(model))) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = kTokensPerSequence * (unified ? 1 : sequences);
    params.n_batch = kTokensPerBatch;
    params.n_seq_max = sequences;
    params.n_outputs_max = sequences;  // otherwise room for a batch of logits, 400 MB
    params.kv_unified = unified;
    context_.reset(llama_init_from_model(model, params));
    if (context_ == nullptr) throw std::runtime_error("llama.cpp cannot make a context");
  }
  ~Decoder() { llama_batch_free(batch_); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  llama_context* context() { return context_.get(); }
  llama_memory_t memory() { return llama_get_memory(context_.get()); }
  void SetThreads(int threads) { llama_set_n_threads(context_.get(), threads, threads); }

  // Computes whole prompts, one per sequence, and the logits after each one's last token.
  void Prefill(const std::vector<TokenIds>& prompts) {
    llama_memory_clear(memory(), /*data=*/false);
    for (size_t sequence = 0; sequence < prompts.size(); ++sequence) {
      const TokenIds& prompt = prompts[sequence];
      for (size_t i = 0; i < prompt.size(); ++i) {
        if (batch_.n_tokens == kTokensPerBatch) Flush();
        Add(prompt[i], static_cast<int>(i), static_cast<int>(sequence), i + 1 == prompt.size());
      }
    }
    Flush();
  }

  // Feeds one token to each sequence at `position`, and replaces it by the most likely next one.
  void Step(int position, TokenIds& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) Add(tokens[i], position, static_cast<int>(i), /*logits=*/true);
    Flush();
    for (size_t i = 0; i < tokens.size(); ++i) {
      const float* logits = llama_get_logits_ith(context_.get(), static_cast<int>(i));
      tokens[i] = static_cast<int32_t>(std::max_element(logits, logits + vocab_size_) - logits);
    }
  }

  // Forgets what follows the first `tokens` tokens of each sequence.
  void Rewind(int tokens, int sequences) {
    for (int i = 0; i < sequences; ++i) llama_memory_seq_rm(memory(), i, tokens, -1);
  }

 private:
  void Add(int32_t token, int position, int sequence, bool logits) {
    const int i = batch_.n_tokens++;
    batch_.token[i] = token;
    batch_.pos[i] = position;
    batch_.n_seq_id[i] = 1;
    batch_.seq_id[i][0] = sequence;
    batch_.logits[i] = static_cast<int8_t>(logits);
  }

  void Flush() {
    const int error = llama_decode(context_.get(), batch_);
    batch_.n_tokens = 0;
    if (error != 0) throw std::runtime_error("llama_decode fails with " + std::to_string(error));
  }

  std::unique_ptr<llama_context, Deleter> context_;
  llama_batch batch_;
  int vocab_size_;
};

class LlamaBench {
 public:
  LlamaBench(const std::string& model, const std::string& prompts, std::string directory)
      : prompts_(prompts), directory_(std::move(directory)) {
    llama_backend_init();
    model_.reset(llama_model_load_from_file(model.c_str(), llama_model_default_params()));
    if (model_ == nullptr) throw std::runtime_error("llama.cpp cannot load " + model);
  }

  static Json Describe() { return {{"system", llama_print_system_info()}, {"kv", "f16"}}; }

  Json Serve(const Json& task) {
    const std::string name = task.at("task");
    threads_ = task.value("threads", threads_);
    if (name == "prefill") return Prefill(task.at("tokens"), task.at("batch"));
    if (name == "decode") return Decode(task.at("tokens"), task.at("batch"), task.at("steps"));
    if (name == "save") return Save(task.at("tokens"), task.at("sequence"));
    if (name == "load") return Load(task.at("tokens"), task.at("sequence"));
    if (name == "branch") return Branch(task.at("tokens"));
    if (name == "release") return Release();
    throw std::runtime_error("unknown task " + name);
  }

 private:
  // The context for that many sequences, kept until Release.
  Decoder& DecoderFor(int sequences) {
    Kept& kept = kept_[sequences];
    if (kept.decoder == nullptr) kept.decoder = std::make_unique<Decoder>(model_.get(), sequences, /*unified=*/false);
    kept.decoder->SetThreads(threads_);
    return *kept.decoder;
  }

  std::vector<TokenIds> Batch(int tokens, int batch) const {
    std::vector<TokenIds> prompts;
    for (int i = 0; i < batch; ++i) prompts.push_back(prompts_.Sequence(i, tokens));
    return prompts;
  }

  std::string StateFile(int tokens, int sequence) const {
    return directory_ + "/llama-" + std::to_string(tokens) + "-" + std::to_string(sequence) + ".state";
  }

  Json Prefill(int tokens, int batch) {
    Decoder& decoder = DecoderFor(batch);
    kept_[batch].tokens = 0;
    const std::vector<TokenIds> prompts = Batch(tokens, batch);
    return {{"seconds", Seconds([&] { decoder.Prefill(prompts); })}};
  }

  // Every sequence goes on from a copy of the same prompt's KV. One step before the measured ones makes the copies.
  Json Decode(int tokens, int batch, int steps) {
    Decoder& decoder = DecoderFor(batch);
    if (kept_[batch].tokens != tokens) {
      decoder.Prefill(Batch(tokens, 1));
      for (int i = 1; i < batch; ++i) llama_memory_seq_cp(decoder.memory(), 0, i, -1, -1);
      kept_[batch].tokens = tokens;
    }
    TokenIds next(batch);
    for (int i = 0; i < batch; ++i) next[i] = prompts_.Sequence(i, 1)[0];
    decoder.Step(tokens, next);
    decoder.Rewind(tokens, batch);
    const double seconds = Seconds([&] {
      for (int step = 0; step < steps; ++step) decoder.Step(tokens + step, next);
    });
    decoder.Rewind(tokens, batch);
    return {{"seconds", seconds}};
  }

  // Both ways that llama.cpp has to save a sequence: into memory, and into a file (not synced, as it does it; and then
  // the sync apart).
  Json Save(int tokens, int sequence) {
    Decoder& decoder = DecoderFor(1);
    kept_[1].tokens = 0;
    const TokenIds prompt = prompts_.Sequence(sequence, tokens);
    decoder.Prefill({prompt});
    std::vector<uint8_t> state(llama_state_seq_get_size(decoder.context(), 0));
    size_t got = 0;
    const double get_seconds =
        Seconds([&] { got = llama_state_seq_get_data(decoder.context(), state.data(), state.size(), 0); });
    const std::string file = StateFile(tokens, sequence);
    size_t written = 0;
    const double file_seconds = Seconds(
        [&] { written = llama_state_seq_save_file(decoder.context(), file.c_str(), 0, prompt.data(), prompt.size()); });
    if (got != state.size() || written == 0) throw std::runtime_error("llama.cpp cannot save a sequence");
    const double sync_seconds = Seconds([&] { SyncFile(file); });
    return {{"seconds", file_seconds},
            {"sync_seconds", file_seconds + sync_seconds},
            {"memory_seconds", get_seconds},
            {"bytes", std::filesystem::file_size(file)}};
  }

  Json Load(int tokens, int sequence) {
    Decoder& decoder = DecoderFor(1);
    kept_[1].tokens = 0;
    llama_memory_clear(decoder.memory(), /*data=*/false);
    TokenIds read(tokens);
    size_t count = 0;
    size_t loaded = 0;
    const std::string file = StateFile(tokens, sequence);
    const double file_seconds = Seconds([&] {
      loaded = llama_state_seq_load_file(decoder.context(), file.c_str(), 0, read.data(), read.size(), &count);
    });
    std::vector<uint8_t> state(llama_state_seq_get_size(decoder.context(), 0));
    llama_state_seq_get_data(decoder.context(), state.data(), state.size(), 0);
    llama_memory_clear(decoder.memory(), /*data=*/false);
    size_t set = 0;
    const double set_seconds =
        Seconds([&] { set = llama_state_seq_set_data(decoder.context(), state.data(), state.size(), 0); });
    if (loaded == 0 || set == 0 || count != read.size()) throw std::runtime_error("llama.cpp cannot load a sequence");
    return {{"seconds", file_seconds}, {"memory_seconds", set_seconds}};
  }

  // In a unified cache a copy of a sequence marks its cells, and copies no KV.
  Json Branch(int tokens) {
    Decoder decoder(model_.get(), kBranches + 1, /*unified=*/true);
    decoder.SetThreads(threads_);
    decoder.Prefill(Batch(tokens, 1));
    const double seconds = Seconds([&] {
      for (int i = 1; i <= kBranches; ++i) llama_memory_seq_cp(decoder.memory(), 0, i, -1, -1);
    });
    return {{"seconds", seconds}, {"count", kBranches}};
  }

  Json Release() {
    kept_.clear();
    return Json::object();
  }

  // A context, and how many tokens of its prompts it holds for Decode (0: none).
  struct Kept {
    std::unique_ptr<Decoder> decoder;
    int tokens = 0;
  };

  Prompts prompts_;
  std::string directory_;
  int threads_ = 1;
  std::unique_ptr<llama_model, Deleter> model_;
  std::map<int, Kept> kept_;  // by number of sequences
};

// Only warnings and errors, to standard error.
void Log(ggml_log_level level, const char* text, void* /*unused*/) {
  if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR) std::cerr << text;
}

int Main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: llama_bench MODEL.gguf PROMPTS.json DIRECTORY\n";
    return EXIT_FAILURE;
  }
  llama_log_set(Log, nullptr);
  try {
    LlamaBench bench(argv[1], argv[2], argv[3]);
    ServeTasks(LlamaBench::Describe(), [&](const Json& task) { return bench.Serve(task); });
  } catch (const std::exception& error) {
    std::cerr << "llama_bench: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace quicksave::bench

int main(int argc, char** argv) { return quicksave::bench::Main(argc, argv); }
