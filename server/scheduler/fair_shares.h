#ifndef QUICKSAVE_SERVER_SCHEDULER_FAIR_SHARES_H_
#define QUICKSAVE_SERVER_SCHEDULER_FAIR_SHARES_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/scheduler/job.h"

namespace quicksave::server {

// Shares the engine between clients: whoever was served least goes next. A client that comes, or comes back, begins
// where the least served of the others is. (Virtual token counter: Sheng et al., Fairness in Serving Large Language
// Models, OSDI 2024.) What a client can be behind is bounded, so that one which wants little for a long time cannot
// save up a claim with which it would keep all others waiting. Not thread-safe.
class FairShares {
 public:
  // In the unit of costs.
  static constexpr double kMostBehind = 2000;

  // Takes in a client's job that has just come; forgets one that ends.
  void Join(const std::string& client);
  void Leave(const std::string& client);

  // Offers `jobs` one by one, each time the first of the client that was served least, until all were offered or
  // `offer` finds no room for one. `offer` returns what the job took of the engine's time, or nothing.
  void Serve(const std::vector<std::shared_ptr<Job>>& jobs,
             absl::FunctionRef<std::optional<double>(const std::shared_ptr<Job>&)> offer);

 private:
  struct Share {
    int jobs = 0;
    double served = 0;
  };
  absl::flat_hash_map<std::string, Share> shares_;
};

}  // namespace quicksave::server

#endif  // QUICKSAVE_SERVER_SCHEDULER_FAIR_SHARES_H_
