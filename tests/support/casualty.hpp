// One rank of a job is killed or stopped; the others find out.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "support/flow.hpp"
#include "support/shared.hpp"

namespace switchyard::test {

// Far above what it should take (about a second), far below the library's default deadline.
inline constexpr std::chrono::seconds detection_bound{10};

struct Board {
  std::atomic<int> ready{0};               // ranks that are in their loop
  std::atomic<int> done{0};                // survivors that have seen the error
  std::atomic<std::int64_t> struck_ms{0};  // when the victim was stopped
};

inline void die() {
  kill(getpid(), SIGKILL);
}

// What a rank does that dies if it is the victim, and that must lose the victim otherwise.
inline void die_between_round_trips(Buffer& buffer, Problem const& p, bool is_victim) {
  round_trip(p, buffer);
  if (is_victim) die();
  round_trip(p, buffer);
}
inline void die_with_work_in_flight(Buffer& buffer, Problem const& p, bool is_victim) {
  RankInputs const inputs(p, buffer.communicator().rank());
  std::vector<Pending<Dispatched>> pending;
  for (int i = 0; i < 3; ++i) pending.push_back(buffer.dispatch_async(inputs.args()));
  if (is_victim) die();
  for (Pending<Dispatched>& one : pending) one.event().wait();
  (void)buffer.dispatch(inputs.args());
}

// Comparable between the processes of a machine.
inline std::int64_t now_ms() {
  auto const now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

// Polls; false after the bound.
template <typename Condition>
bool wait_until(Condition const& condition, std::chrono::seconds bound = std::chrono::seconds{30}) {
  auto const end = std::chrono::steady_clock::now() + bound;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return true;
}

// What a job must not leave behind.
class Traces {
 public:
  Traces() : shm_(names()) {}
  void expect_none() const {
    wait_until([this] { return left_behind().empty(); }, std::chrono::seconds{5});
    EXPECT_EQ(left_behind(), std::set<std::string>{}) << "/dev/shm has more than before, and nobody holds it";
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    EXPECT_EQ(errno, ECHILD);
  }

 private:
  static std::set<std::string> names() {
    std::set<std::string> found;
    for (auto const& entry : std::filesystem::directory_iterator("/dev/shm")) found.insert(entry.path());
    return found;
  }
  // Other programs of the machine have files there, too. They hold theirs, but for a moment.
  [[nodiscard]] std::set<std::string> left_behind() const {
    std::set<std::string> left = names();
    std::erase_if(left, [this](std::string const& name) { return shm_.contains(name) || is_mapped(name); });
    return left;
  }
  static bool is_mapped(std::string const& name) {
    for (auto const& process : std::filesystem::directory_iterator("/proc")) {
      std::ifstream maps(process.path() / "maps");
      for (std::string line; std::getline(maps, line);)
        if (line.ends_with(name)) return true;
    }
    return false;
  }
  std::set<std::string> shm_;
};

// Runs `action` as a survivor: it must throw an `Expected` that names the victim; afterwards the buffer
// refuses work. Stays in the job until all survivors are through, so that nobody blames a survivor.
template <typename Expected, typename Action>
Expected survive(Board& board, int victim, int survivors, Action&& action) {
  try {
    auto const error = expect_throw<Expected>("losing a rank", action);
    check_equal(error.peer(), victim, "peer of the error: ", error.what());
    check_names(error, {text("rank ", victim)});
    auto const begin = std::chrono::steady_clock::now();
    (void)expect_throw<Error>("a call afterwards", action);
    check(std::chrono::steady_clock::now() - begin < std::chrono::seconds{2}, "a call afterwards waited");
    ++board.done;
    check(wait_until([&] { return board.done >= survivors; }, detection_bound), "the other survivors never ended");
    return error;
  } catch (...) {
    ++board.done;
    throw;
  }
}

// Every survivor must have ended well; the victim by `signal`.
inline void expect_survivors(std::vector<Outcome> const& outcomes, int victim, int signal,
                             std::string const& context) {
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (static_cast<int>(rank) == victim) {
      EXPECT_EQ(outcomes[rank].signal, signal) << "victim: " << outcomes[rank].what << "\n  in " << context;
    } else {
      EXPECT_TRUE(outcomes[rank].ok) << "rank " << rank << ": " << outcomes[rank].what << "\n  in " << context;
    }
  }
}

}  // namespace switchyard::test
