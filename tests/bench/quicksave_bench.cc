// The benchmark's tasks on a running Quicksave server, over the wire, with the client library.
//
// Usage: quicksave_bench ENDPOINT SERVER_PID PROMPTS.json
//
// See task_loop.h for how tasks come in. Times are the caller's wall clock unless they are named as the server's.

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <latch>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "quicksave/client.h"
#include "tests/bench/task_loop.h"

namespace quicksave::bench {
namespace {

// The value of a call; throws its error, which ends the task.
template <class Value>
Value Need(absl::StatusOr<Value> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

double ToSeconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

// Resident memory of a process in bytes.
int64_t ResidentBytes(const std::string& pid) {
  std::ifstream stream("/proc/" + pid + "/status");
  for (std::string word; stream >> word;) {
    if (word != "VmRSS:") continue;
    int64_t kib = 0;
    stream >> kib;
    return kib * 1024;
  }
  throw std::runtime_error("process " + pid + " is gone");
}

Json TimesOf(const client::SaveReport& report) {
  return {{"gather", ToSeconds(report.gather)},
          {"encode", ToSeconds(report.encode)},
          {"commit", ToSeconds(report.commit)},
          {"total", ToSeconds(report.total)}};
}

Json TimesOf(const client::RestoreTiming& timing) {
  return {{"read", ToSeconds(timing.read)},
          {"decode", ToSeconds(timing.decode)},
          {"load", ToSeconds(timing.load)},
          {"check", ToSeconds(timing.check)},
          {"total", ToSeconds(timing.total)}};
}

class QuicksaveBench {
 public:
  QuicksaveBench(client::Client client, std::string server_pid, const std::string& prompts)
      : client_(std::move(client)), server_pid_(std::move(server_pid)), prompts_(prompts) {}

  Json Describe() const {
    const client::ServerStatus status = Need(client_.GetStatus());
    return {{"version", status.server.version},       {"durability", status.server.durability},
            {"device", status.model.device},          {"weights", status.model.weights},
            {"numerics", status.model.numerics},      {"page_tokens", status.engine.page_tokens},
            {"page_bytes", status.engine.page_bytes}, {"kv_bytes_per_token", status.model.kv_bytes_per_token}};
  }

  Json Serve(const Json& task) {
    const std::string name = task.at("task");
    if (name == "prefill") return Prefill(task.at("tokens"), task.at("batch"));
    if (name == "decode") return Decode(task.at("tokens"), task.at("batch"), task.at("steps"));
    if (name == "mixed") return Mixed(task.at("tokens"), task.at("batch"), task.at("steps"), task.at("prompt"));
    if (name == "save") return Save(task.at("tokens"), task.at("sequence"));
    if (name == "load") return Load(task.at("node"));
    if (name == "profile") return LoadProfile(task.at("file"));
    if (name == "encoding") return Encoding(task);
    if (name == "extend") return Extend(task.at("tokens"), task.at("sequence"), task.at("more"));
    if (name == "branch") return Branch(task.at("tokens"), task.at("count"));
    if (name == "rpc") return Rpc(task.at("calls"));
    if (name == "quality") return Quality(task);
    if (name == "release") return Release();
    throw std::runtime_error("unknown task " + name);
  }

 private:
  // Goes on from `session` for exactly `steps` tokens.
  client::GenerateFinished GoOn(const std::string& session, int steps) const {
    return Need(
        client_.Generate({.start = client::FromSession{session}, .stop = {.max_tokens = steps, .ignore_eos = true}},
                         [](const client::GenerateEvent&) { return true; }));
  }

  // Computes a prompt into a new session, generating nothing.
  client::GenerateFinished NewSession(int sequence, int tokens, bool keep) const {
    return Need(client_.Generate(
        {.input = prompts_.Sequence(sequence, tokens), .stop = {.max_tokens = 0}, .keep_session = keep},
        [](const client::GenerateEvent&) { return true; }));
  }

  void Delete(const std::string& session) const {
    const absl::Status status = client_.DeleteSession({session});
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }

  // Calls work(0) to work(count - 1) at once, each on its own thread. Returns the seconds from the common start to
  // the last one's end.
  static double AllAtOnce(int count, const std::function<void(int)>& work) {
    std::barrier start(count + 1);
    std::vector<std::string> errors(count);
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        try {
          work(i);
        } catch (const std::exception& error) {
          errors[i] = error.what();
        }
      });
    }
    start.arrive_and_wait();
    const double seconds = Seconds([&] {
      for (std::thread& thread : threads) thread.join();
    });
    for (const std::string& error : errors) {
      if (!error.empty()) throw std::runtime_error(error);
    }
    return seconds;
  }

  Json Prefill(int tokens, int batch) const {
    std::vector<double> server_times(batch);
    const double seconds = AllAtOnce(
        batch, [&](int i) { server_times[i] = ToSeconds(NewSession(i, tokens, /*keep=*/false).prefill_time); });
    return {{"seconds", seconds}, {"server_seconds", *std::max_element(server_times.begin(), server_times.end())}};
  }

  // Decodes in branches of prepared sessions, so that a repetition finds the same state. No two sequences share KV.
  Json Decode(int tokens, int batch, int steps) {
    std::vector<std::string> sessions;
    for (int i = 0; i < batch; ++i) {
      sessions.push_back(Need(client_.Branch({.start = client::FromSession{Prepared(i, tokens)}})).sessions.at(0).name);
    }
    std::vector<double> server_times(batch);
    const double seconds =
        AllAtOnce(batch, [&](int i) { server_times[i] = ToSeconds(GoOn(sessions[i], steps).decode_time); });
    for (const std::string& session : sessions) Delete(session);
    return {{"seconds", seconds}, {"server_seconds", *std::max_element(server_times.begin(), server_times.end())}};
  }

  // `batch` sessions of `tokens` tokens decode `steps` each; when they are through a quarter, a prompt of `prompt`
  // tokens comes. Returns the times between the tokens that a caller gets, and that to the prompt's first token.
  Json Mixed(int tokens, int batch, int steps, int prompt) {
    std::vector<std::string> sessions;
    for (int i = 0; i < batch; ++i) {
      sessions.push_back(Need(client_.Branch({.start = client::FromSession{Prepared(i, tokens)}})).sessions.at(0).name);
    }
    std::vector<std::vector<double>> gaps(batch);
    std::latch quarter(ptrdiff_t{batch} * (steps / 4));
    double first_token = 0;
    const auto decode = [&](int i) {
      int count = 0;
      absl::Time last = absl::InfinitePast();
      const auto note = [&](const client::GenerateEvent& event) {
        if (std::get_if<client::GenerateDelta>(&event) == nullptr) return true;
        const absl::Time now = absl::Now();
        if (last != absl::InfinitePast()) gaps[i].push_back(ToSeconds(now - last));
        last = now;
        if (++count <= steps / 4) quarter.count_down();
        return true;
      };
      Need(client_.Generate(
          {.start = client::FromSession{sessions[i]}, .stop = {.max_tokens = steps, .ignore_eos = true}}, note));
    };
    const auto interrupt = [&] {
      quarter.wait();
      first_token = Seconds([&] {
        Need(
            client_.Generate({.input = prompts_.Sequence(batch, prompt), .stop = {.max_tokens = 1, .ignore_eos = true}},
                             [](const client::GenerateEvent&) { return true; }));
      });
    };
    const double seconds = AllAtOnce(batch + 1, [&](int i) { i < batch ? decode(i) : interrupt(); });
    for (const std::string& session : sessions) Delete(session);
    std::vector<double> all;
    for (const std::vector<double>& some : gaps) all.insert(all.end(), some.begin(), some.end());
    return {{"seconds", seconds}, {"first_token", first_token}, {"gaps", all}};
  }

  Json Save(int tokens, int sequence) const {
    const std::string session = NewSession(sequence, tokens, /*keep=*/true).session;
    client::SavedNode saved;
    const double seconds = Seconds([&] { saved = Need(client_.Snapshot({.session = session})); });
    Delete(session);
    return {{"seconds", seconds},
            {"stages", TimesOf(saved.report)},
            {"node", saved.node.name},
            {"codec", saved.node.storage.codec},
            {"raw_bytes", saved.node.storage.raw_bytes},
            {"block_bytes", saved.node.storage.stored_bytes},
            {"logits_bytes", saved.node.storage.logits_bytes},
            {"written_bytes", saved.report.written_bytes}};
  }

  Json Load(const std::string& node) const {
    client::RestoreResponse restored;
    const double seconds = Seconds([&] { restored = Need(client_.Restore({.node = node})); });
    Delete(restored.session.name);
    const client::Proof& proof = restored.proof;
    return {{"seconds", seconds},
            {"stages", TimesOf(proof.timing)},
            {"tokens_reused", proof.tokens_reused},
            {"tokens_recomputed", proof.tokens_recomputed},
            {"bytes_read", proof.bytes_read},
            {"identical", proof.check.outcome == client::CheckOutcome::kIdentical}};
  }

  Json LoadProfile(const std::string& file) const {
    const client::Profile profile = Need(client_.LoadProfile({.path = file}));
    return {{"id", profile.id}, {"split", profile.split}, {"bytes", profile.size_bytes}};
  }

  // Computes `tokens` tokens, saves them, encodes them if a codec is named, with the profile's point `default`, and
  // drops what was saved; then restores the node.
  Json Encoding(const Json& task) const {
    std::string session;
    const double anew =
        Seconds([&] { session = NewSession(task.at("sequence"), task.at("tokens"), /*keep=*/true).session; });
    const client::SavedNode saved = Need(client_.Snapshot({.session = session}));
    Delete(session);
    int64_t stored = saved.node.storage.stored_bytes;
    double mean_kl = 0;
    double encode = ToSeconds(saved.report.total);
    if (task.contains("codec")) {
      client::EncodeNodeRequest request{.name = saved.node.name, .drop_saved = true};
      request.encoding.codec = task.at("codec");
      request.encoding.profile = task.value("profile", "");
      client::EncodeNodeResponse encoded;
      encode = Seconds([&] { encoded = Need(client_.EncodeNode(request)); });
      stored = encoded.encoding.value().stored_bytes;
      if (encoded.encoding->fidelity) mean_kl = encoded.encoding->fidelity->mean_kl;
    }
    client::RestoreResponse restored;
    const double seconds = Seconds([&] { restored = Need(client_.Restore({.node = saved.node.name})); });
    Delete(restored.session.name);
    const client::Proof& proof = restored.proof;
    return {{"seconds", seconds},
            {"anew", anew},
            {"encode", encode},
            {"stored_bytes", stored},
            {"raw_bytes", saved.node.storage.raw_bytes},
            {"mean_kl", mean_kl},
            {"estimate", ToSeconds(proof.estimate)},
            {"stages", TimesOf(proof.timing)},
            {"replay", ToSeconds(proof.timing.replay)}};
  }

  // Saves, generates `more` tokens, saves again: what the second save writes.
  Json Extend(int tokens, int sequence, int more) const {
    const std::string session = NewSession(sequence, tokens, /*keep=*/true).session;
    const client::SavedNode first = Need(client_.Snapshot({.session = session}));
    GoOn(session, more);
    client::SavedNode second;
    const double seconds = Seconds([&] { second = Need(client_.Snapshot({.session = session})); });
    Delete(session);
    return {{"seconds", seconds},
            {"written_bytes", second.report.written_bytes},
            {"added_block_bytes", second.node.storage.added_bytes},
            {"encoded_bytes", second.report.encoded_bytes},
            {"logits_bytes", second.node.storage.logits_bytes},
            {"new_blocks", second.report.new_blocks},
            {"shared_blocks", second.report.shared_blocks},
            {"first_block_bytes", first.node.storage.stored_bytes},
            {"stages", TimesOf(second.report)}};
  }

  // Branches one session `count` times in one call, and then lets one branch go on by one token, which is when it
  // first needs memory for K and V of its own.
  Json Branch(int tokens, int count) {
    const std::string parent = Prepared(0, tokens);
    const int pages_before = Need(client_.GetStatus()).engine.pages_used;
    const int64_t resident_before = ResidentBytes(server_pid_);
    client::BranchResponse branches;
    const double seconds =
        Seconds([&] { branches = Need(client_.Branch({.start = client::FromSession{parent}, .count = count})); });
    const int64_t resident_after = ResidentBytes(server_pid_);
    const int pages_after = Need(client_.GetStatus()).engine.pages_used;
    GoOn(branches.sessions.at(0).name, 1);
    const int pages_written = Need(client_.GetStatus()).engine.pages_used;
    for (const client::Session& session : branches.sessions) Delete(session.name);
    return {{"seconds", seconds},
            {"server_seconds", ToSeconds(branches.branch_time)},
            {"pages", pages_after - pages_before},
            {"pages_after_one_token", pages_written - pages_before},
            {"resident_bytes", resident_after - resident_before}};
  }

  // Round trips that need no computing, and what a Generate of one token takes beyond the server's own time for it.
  Json Rpc(int calls) {
    const std::string session = Prepared(0, 128);
    std::vector<double> status_times;
    std::vector<double> session_times;
    std::vector<double> generate_overheads;
    for (int i = 0; i < calls; ++i) {
      status_times.push_back(Seconds([&] { Need(client_.GetStatus()); }));
      session_times.push_back(Seconds([&] { Need(client_.GetSession({.name = session})); }));
    }
    const std::string branch = Need(client_.Branch({.start = client::FromSession{session}})).sessions.at(0).name;
    for (int i = 0; i < std::max(1, calls / 10); ++i) {
      client::GenerateFinished finished;
      const double seconds = Seconds([&] { finished = GoOn(branch, 1); });
      generate_overheads.push_back(seconds - ToSeconds(finished.prefill_time + finished.decode_time));
    }
    Delete(branch);
    return {{"get_status", status_times}, {"get_session", session_times}, {"generate_overhead", generate_overheads}};
  }

  // What the model thinks of a text, {"text": TEXT} or {"ids": IDS}, of at most `tokens` tokens: for each token but the
  // first its log-probability, and the ids and log-probabilities of the `top` most likely ones, likeliest first.
  Json Quality(const Json& task) const {
    TokenIds ids = task.contains("ids") ? task.at("ids").get<TokenIds>() : Tokenize(task.at("text"));
    ids.resize(std::min<size_t>(ids.size(), task.at("tokens")));
    const int top = task.at("top");
    const std::string session =
        Need(client_.Generate({.input = TokenIds{ids.at(0)}, .stop = {.max_tokens = 0}, .keep_session = true},
                              [](const client::GenerateEvent&) { return true; }))
            .session;
    Json rows = Json::array();
    const double seconds = Seconds([&] {
      for (size_t begin = 1; begin < ids.size(); begin += kScoredTokens) {
        const TokenIds chunk(ids.begin() + begin, ids.begin() + std::min(begin + kScoredTokens, ids.size()));
        const client::ScoreResponse response =
            Need(client_.Score({.start = client::FromSession{session}, .continuations = {chunk}, .top_k = top}));
        for (const client::Token& token : response.scores.at(0).tokens) {
          Json likely_ids = Json::array();
          Json logprobs = Json::array();
          for (const client::TokenProbability& likely : token.top) {
            likely_ids.push_back(likely.id);
            logprobs.push_back(likely.logprob);
          }
          rows.push_back({{"logprob", token.logprob.value()}, {"ids", likely_ids}, {"logprobs", logprobs}});
        }
        Need(client_.Generate({.start = client::FromSession{session}, .input = chunk, .stop = {.max_tokens = 0}},
                              [](const client::GenerateEvent&) { return true; }));
      }
    });
    Delete(session);
    return {{"seconds", seconds}, {"tokens", rows}};
  }

  TokenIds Tokenize(const std::string& text) const {
    const std::string session = Need(client_.Generate({.input = text, .stop = {.max_tokens = 0}, .keep_session = true},
                                                      [](const client::GenerateEvent&) { return true; }))
                                    .session;
    const client::Session state = Need(client_.GetSession({.name = session, .view = client::View::kFull}));
    Delete(session);
    return state.token_ids;
  }

  // A session of a sequence's first tokens, made once and kept until Release.
  const std::string& Prepared(int sequence, int tokens) {
    std::string& session = prepared_[{sequence, tokens}];
    if (session.empty()) session = NewSession(sequence, tokens, /*keep=*/true).session;
    return session;
  }

  Json Release() {
    for (const auto& [key, session] : prepared_) Delete(session);
    prepared_.clear();
    return Json::object();
  }

  // Of one call, which may return 100,000 alternatives.
  static constexpr size_t kScoredTokens = 200;

  client::Client client_;
  std::string server_pid_;
  Prompts prompts_;
  std::map<std::pair<int, int>, std::string> prepared_;  // by sequence and length
};

// Waits until the server serves: its port is open before its model is loaded.
void AwaitServing(const client::Client& client, const std::string& server_pid) {
  constexpr absl::Duration kPatience = absl::Minutes(3);
  const absl::Time deadline = absl::Now() + kPatience;
  while (true) {
    const absl::StatusOr<client::Health> health = client.CheckHealth("quicksave.v1.SnapshotService");
    if (health.ok() && *health == client::Health::kServing) return;
    if (absl::Now() > deadline) throw std::runtime_error("the server does not serve: " + health.status().ToString());
    ResidentBytes(server_pid);
    // Not to wait for a condition: it measures at intervals.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

int Main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: quicksave_bench ENDPOINT SERVER_PID PROMPTS.json\n";
    return EXIT_FAILURE;
  }
  try {
    const client::Client client = Need(client::Client::Connect({.endpoint = argv[1]}));
    AwaitServing(client, argv[2]);
    QuicksaveBench bench(client, argv[2], argv[3]);
    ServeTasks(bench.Describe(), [&](const Json& task) { return bench.Serve(task); });
  } catch (const std::exception& error) {
    std::cerr << "quicksave_bench: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace quicksave::bench

int main(int argc, char** argv) { return quicksave::bench::Main(argc, argv); }
