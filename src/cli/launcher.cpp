#include "cli/launcher.hpp"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "cli/print.hpp"

namespace switchyard::cli {

namespace {

using std::chrono::milliseconds;

// Blocks the signals that the supervisor takes one by one with sigtimedwait, for as long as it lives.
class SignalBlock {
 public:
  SignalBlock() {
    sigemptyset(&taken_);
    for (int const signal : {SIGCHLD, SIGINT, SIGTERM, SIGHUP}) sigaddset(&taken_, signal);
    check_call(sigprocmask(SIG_BLOCK, &taken_, &before_), "sigprocmask");
  }
  ~SignalBlock() { restore(); }
  SignalBlock(SignalBlock const&) = delete;
  SignalBlock& operator=(SignalBlock const&) = delete;

  void restore() const noexcept { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  // The next signal, or nothing after `timeout`.
  [[nodiscard]] std::optional<int> next(milliseconds timeout) const {
    timespec const limit{.tv_sec = timeout.count() / 1000, .tv_nsec = timeout.count() % 1000 * 1000000};
    int const signal = sigtimedwait(&taken_, nullptr, &limit);
    return signal > 0 ? std::optional(signal) : std::nullopt;
  }

 private:
  sigset_t taken_{};
  sigset_t before_{};
};

struct Child {
  pid_t pid = -1;
  bool running = false;
  bool told_to_end = false;  // by the supervisor
  int status = 0;            // as from waitpid

  [[nodiscard]] bool failed() const { return !running && status != 0; }
  [[nodiscard]] bool by_signal() const { return !running && WIFSIGNALED(status); }
};

std::string how(Child const& child) {
  if (child.by_signal()) {
    int const signal = WTERMSIG(child.status);
    return fmt::format("was killed by signal {} ({})", signal, strsignal(signal));
  }
  return fmt::format("exited with status {}", WEXITSTATUS(child.status));
}

// 128 random bits in hexadecimal.
std::string random_token() {
  std::array<std::uint64_t, 2> words{};
  if (::getrandom(words.data(), sizeof words, 0) != static_cast<ssize_t>(sizeof words)) throw_errno("getrandom");
  return fmt::format("{:016x}{:016x}", words[0], words[1]);
}

// Tells the children, which are there before it, the port of the store.
class PortPipe {
 public:
  PortPipe() {
    std::array<int, 2> ends{};
    check_call(::pipe2(ends.data(), O_CLOEXEC), "pipe");
    read_ = UniqueFd(ends[0]);
    write_ = UniqueFd(ends[1]);
  }
  void send(std::uint16_t port) const {
    check_call(::write(write_.get(), &port, sizeof port), "telling a rank the port of the store");
  }
  std::uint16_t receive() {
    write_.reset();  // or this process would wait for itself if the launcher dies
    std::uint16_t port = 0;
    if (::read(read_.get(), &port, sizeof port) != sizeof port) throw_errno("waiting for the port of the store");
    return port;
  }

 private:
  UniqueFd read_;
  UniqueFd write_;
};

class Supervisor {
 public:
  Supervisor(LaunchOptions const& options, std::function<int(RankContext const&)> const& body)
      : options_(options),
        body_(body),
        barrier_(options.nodes == 1 ? SharedBarrier::create(options.ranks) : nullptr) {}
  ~Supervisor() { kill_all(); }
  Supervisor(Supervisor const&) = delete;
  Supervisor& operator=(Supervisor const&) = delete;

  void start();
  void watch();
  [[nodiscard]] int report() const;

 private:
  [[noreturn]] void run_child(RankContext context, pid_t parent);
  void reap();
  void on_failure(std::size_t rank);
  void advance_end();
  void signal_all(int signal);
  void kill_all() noexcept;
  [[nodiscard]] bool any_running() const;
  [[nodiscard]] std::optional<std::size_t> culprit() const;

  LaunchOptions options_;
  std::function<int(RankContext const&)> const& body_;
  SharedBarrier::Owner barrier_;
  SignalBlock signals_;
  PortPipe ports_;
  std::optional<TcpStoreServer> store_;
  std::vector<Child> children_;
  std::optional<std::size_t> first_failed_;
  // Once the end has begun: when the next stronger signal is due, and which.
  std::optional<Deadline> next_step_;
  int next_signal_ = SIGTERM;
  int interrupted_by_ = 0;
};

void Supervisor::start() {
  RankContext context{.size = options_.ranks, .address = {}, .token = random_token(), .barrier = barrier_.get()};
  auto const node_by_rank = divide_into_nodes(options_.ranks, options_.nodes);
  std::fflush(nullptr);  // or the children would print it again
  pid_t const parent = ::getpid();
  for (; context.rank < options_.ranks; ++context.rank) {
    if (options_.nodes > 1)
      context.node = fmt::format("node {}", node_by_rank[static_cast<std::size_t>(context.rank)]);
    pid_t const pid = check_call(::fork(), "fork of a rank");
    if (pid == 0) run_child(context, parent);
    children_.push_back({.pid = pid, .running = true});
  }
  // Only now, as it starts a thread.
  store_.emplace(TcpStoreServerOptions{.port = 0, .token = context.token});
  for (int rank = 0; rank < options_.ranks; ++rank) ports_.send(store_->port());
}

void Supervisor::run_child(RankContext context, pid_t parent) {
  // Dies with its parent, also when that died just before this call.
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) std::_Exit(1);
  signals_.restore();
  int status = 1;
  try {
    context.address = fmt::format("127.0.0.1:{}", ports_.receive());
    status = body_(context);
  } catch (std::exception const& error) {
    say("rank {}: {}", context.rank, error.what());
  }
  std::exit(status);
}

void Supervisor::watch() {
  while (any_running()) {
    auto const signal = signals_.next(next_step_ ? next_step_->remaining() : milliseconds{1000});
    if (signal && *signal != SIGCHLD && interrupted_by_ == 0) {
      interrupted_by_ = *signal;
      next_step_.emplace(milliseconds{0});
    }
    reap();
    advance_end();
  }
}

void Supervisor::reap() {
  for (std::size_t rank = 0; rank < children_.size(); ++rank) {
    Child& child = children_[rank];
    if (!child.running || ::waitpid(child.pid, &child.status, WNOHANG) != child.pid) continue;
    child.running = false;
    if (child.failed()) on_failure(rank);
  }
}

void Supervisor::on_failure(std::size_t rank) {
  if (first_failed_) return;
  first_failed_ = rank;
  if (barrier_) barrier_->abandon(static_cast<int>(rank));
  if (!next_step_) next_step_.emplace(options_.grace);
}

void Supervisor::advance_end() {
  if (!next_step_ || !next_step_->expired()) return;
  signal_all(next_signal_);
  next_signal_ = SIGKILL;  // a stopped rank does not take SIGTERM
  next_step_.emplace(milliseconds{1000});
}

void Supervisor::signal_all(int signal) {
  for (Child& child : children_) {
    if (!child.running) continue;
    child.told_to_end = true;
    ::kill(child.pid, signal);
  }
}

void Supervisor::kill_all() noexcept {
  signal_all(SIGKILL);
  for (Child& child : children_) {
    if (child.running) ::waitpid(child.pid, &child.status, 0);
    child.running = false;
  }
}

bool Supervisor::any_running() const {
  return std::any_of(children_.begin(), children_.end(), [](Child const& child) { return child.running; });
}

// A rank that a signal killed is the cause, whoever was reaped first; else the first that failed.
std::optional<std::size_t> Supervisor::culprit() const {
  for (std::size_t rank = 0; rank < children_.size(); ++rank) {
    if (children_[rank].by_signal() && !children_[rank].told_to_end) return rank;
  }
  return first_failed_;
}

int Supervisor::report() const {
  if (interrupted_by_ != 0) {
    say("interrupted by signal {} ({})", interrupted_by_, strsignal(interrupted_by_));
    return 128 + interrupted_by_;
  }
  auto const cause = culprit();
  if (!cause) return 0;
  say("rank {} {}", *cause, how(children_[*cause]));
  std::vector<std::size_t> followed;
  std::vector<std::size_t> ended;
  for (std::size_t rank = 0; rank < children_.size(); ++rank) {
    if (rank == *cause || !children_[rank].failed()) continue;
    (children_[rank].told_to_end ? ended : followed).push_back(rank);
  }
  if (!followed.empty()) say("failed too: rank {}", fmt::join(followed, ", "));
  if (!ended.empty()) say("ended by force, {} ms after: rank {}", options_.grace.count(), fmt::join(ended, ", "));
  return 1;
}

}  // namespace

std::vector<int> divide_into_nodes(int ranks, int nodes) {
  std::vector<int> node_by_rank;
  for (int node = 0; node < nodes; ++node) {
    int const count = ranks / nodes + (node < ranks % nodes ? 1 : 0);
    node_by_rank.resize(node_by_rank.size() + static_cast<std::size_t>(count), node);
  }
  return node_by_rank;
}

int run_local_ranks(LaunchOptions const& options, std::function<int(RankContext const&)> const& body) {
  Supervisor supervisor(options, body);
  supervisor.start();
  supervisor.watch();
  return supervisor.report();
}

}  // namespace switchyard::cli
