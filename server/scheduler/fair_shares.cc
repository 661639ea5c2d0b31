#include "server/scheduler/fair_shares.h"

#include <algorithm>
#include <deque>
#include <limits>

namespace quicksave::server {

void FairShares::Join(const std::string& client) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& [name, share] : shares_) least = std::min(least, share.served);
  const auto [it, is_new] = shares_.try_emplace(client);
  if (is_new && shares_.size() > 1) it->second.served = least;
  ++it->second.jobs;
}

void FairShares::Leave(const std::string& client) {
  const auto it = shares_.find(client);
  if (--it->second.jobs == 0) shares_.erase(it);
}

void FairShares::Serve(const std::vector<std::shared_ptr<Job>>& jobs,
                       absl::FunctionRef<std::optional<double>(const std::shared_ptr<Job>&)> offer) {
  struct Line {
    std::string client;
    std::deque<std::shared_ptr<Job>> jobs;
  };
  std::vector<Line> lines;  // in the order of the clients' first jobs, which decides between equals
  for (const std::shared_ptr<Job>& job : jobs) {
    auto line = std::find_if(lines.begin(), lines.end(), [&](const Line& some) { return some.client == job->client; });
    if (line == lines.end()) line = lines.insert(lines.end(), {job->client, {}});
    line->jobs.push_back(job);
  }
  while (!lines.empty()) {
    const auto served = [this](const Line& line) { return shares_.at(line.client).served; };
    const auto next = std::min_element(lines.begin(), lines.end(),
                                       [&](const Line& a, const Line& b) { return served(a) < served(b); });
    const std::optional<double> cost = offer(next->jobs.front());
    if (!cost) break;
    // The offered job may have been the client's last one, and have ended.
    if (const auto share = shares_.find(next->client); share != shares_.end()) share->second.served += *cost;
    next->jobs.pop_front();
    if (next->jobs.empty()) lines.erase(next);
  }
  double most = 0;
  for (const auto& [client, share] : shares_) most = std::max(most, share.served);
  for (auto& [client, share] : shares_) share.served = std::max(share.served, most - kMostBehind);
}

}  // namespace quicksave::server
