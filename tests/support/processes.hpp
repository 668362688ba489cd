// Ranks as child processes of this one.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/kernel_symbols.hpp"
#include "support/outcome.hpp"
#include "support/played_nodes.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {

// A loopback port that nobody listens on, below the range that the kernel hands out by itself.
inline int free_port() {
  static std::uint64_t calls = 0;
  Random random(mix(static_cast<std::uint64_t>(getpid()), ++calls));
  for (int attempt = 0; attempt < 100; ++attempt) {
    int const port = 12000 + static_cast<int>(random.below(18000));
    int const fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    bool const is_free = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(fd);
    if (is_free) return port;
  }
  throw std::runtime_error("no free loopback port");
}

struct Child {
  pid_t pid = -1;
  int report = -1;  // read end of a pipe: the text of its failure
  bool reaped = false;
  Outcome outcome;
};

// Runs in a child before it joins the job.
using BeforeJoining = std::function<void(int rank)>;

// Starts a rank per child process; kills and reaps whatever is left when it goes.
class Processes {
 public:
  // `host`: an address or name of rank 0, where it serves the store; as it stands before a port.
  Processes(int ranks, RankBody const& body, BeforeJoining before = {}, std::string const& host = "127.0.0.1")
      : before_(std::move(before)), children_(static_cast<std::size_t>(ranks)) {
    CommunicatorOptions options;
    options.size = ranks;
    options.address = host + ":" + std::to_string(free_port());
    options.token = std::to_string(mix(static_cast<std::uint64_t>(getpid()), 99));
    std::fflush(nullptr);
    for (options.rank = 0; options.rank < ranks; ++options.rank) start(options, body);
  }
  Processes(Processes const&) = delete;
  Processes& operator=(Processes const&) = delete;
  ~Processes() {
    kill_stragglers();
    for (Child const& child : children_) close(child.report);
  }

  [[nodiscard]] pid_t pid(int rank) const { return children_[static_cast<std::size_t>(rank)].pid; }

  // Only to a child that is not reaped yet, so the pid is still its own.
  void signal(int rank, int number) {
    Child const& child = children_[static_cast<std::size_t>(rank)];
    if (!child.reaped) kill(child.pid, number);
  }

  // Waits until these many children have ended; true if they did in time.
  bool wait_for(int count, std::chrono::milliseconds timeout) {
    auto const end = std::chrono::steady_clock::now() + timeout;
    while (reap() < count) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
    return true;
  }

  // Waits for all, kills those that hang, and says how each ended.
  std::vector<Outcome> wait(std::chrono::milliseconds timeout = hang_deadline) {
    wait_for(static_cast<int>(children_.size()), timeout);
    kill_stragglers();
    std::vector<Outcome> outcomes;
    for (Child const& child : children_) outcomes.push_back(child.outcome);
    return outcomes;
  }

 private:
  void start(CommunicatorOptions const& options, RankBody const& body) {
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    pid_t const pid = fork();
    if (pid < 0) throw std::runtime_error("fork failed");
    if (pid == 0) run_child(options, body, ends[1]);
    close(ends[1]);
    Child& child = children_[static_cast<std::size_t>(options.rank)];
    child.pid = pid;
    child.report = ends[0];
  }

  [[noreturn]] void run_child(CommunicatorOptions options, RankBody const& body, int report) const {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hide_kernel_symbols();
    std::string const what = capture([&] {
                               if (before_) before_(options.rank);
                               // Unless that has said where the rank is.
                               if (std::getenv("SWITCHYARD_NODE") == nullptr)
                                 options.node = played_node(options.size, options.rank);
                               Communicator communicator = Communicator::connect(options);
                               body(communicator);
                             }).what;
    if (!what.empty()) {
      std::fprintf(stderr, "rank %d (process %d): %s\n", options.rank, static_cast<int>(getpid()), what.c_str());
      std::size_t const bytes = what.size() < 4000 ? what.size() : 4000;
      if (write(report, what.data(), bytes) < 0) std::perror("report");
    }
    std::fflush(nullptr);
    _exit(what.empty() ? 0 : 1);
  }

  // Collects children that have ended; returns how many have in all.
  int reap() {
    int count = 0;
    for (Child& child : children_) {
      int status = 0;
      if (!child.reaped && waitpid(child.pid, &status, WNOHANG) == child.pid) note_end(child, status);
      if (child.reaped) ++count;
    }
    return count;
  }

  static void note_end(Child& child, int status) {
    child.reaped = true;
    char text[4000];
    ssize_t const bytes = ::read(child.report, text, sizeof text);
    if (bytes > 0) child.outcome.what.append(text, static_cast<std::size_t>(bytes));
    child.outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    child.outcome.ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!child.outcome.ok && child.outcome.what.empty()) {
      child.outcome.what = "ended with wait status " + std::to_string(status);
    }
  }

  void kill_stragglers() {
    reap();
    for (Child& child : children_) {
      if (child.reaped || child.pid < 0) continue;
      kill(child.pid, SIGKILL);
      int status = 0;
      waitpid(child.pid, &status, 0);
      note_end(child, status);
      child.outcome.what = "HANG: killed after the deadline; " + child.outcome.what;
    }
  }

  BeforeJoining before_;
  std::vector<Child> children_;
};

inline std::vector<Outcome> run_as_processes(int ranks, RankBody const& body) {
  return Processes(ranks, body).wait();
}

}  // namespace switchyard::test
