// The file descriptors of this process: how many are open, and what it is like to have run out of them.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace switchyard::test {

inline std::size_t num_open_descriptors() {
  auto const open = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(open), end(open)));
}

// Connections over a network whose peers have addresses of a family; sockets of other kinds have peers of another
// one.
inline int num_connections(sa_family_t family) {
  int count = 0;
  for (auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    int const fd = std::stoi(entry.path().filename().string());
    bool const connected = getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0;
    count += connected && peer.ss_family == family ? 1 : 0;
  }
  return count;
}

// While it lives, this process may open `left` more descriptors, and those that it closes once again.
class FewDescriptors {
 public:
  explicit FewDescriptors(int left) {
    if (getrlimit(RLIMIT_NOFILE, &before_) != 0) throw std::runtime_error("getrlimit failed");
    rlimit few = before_;
    // Numbers count: each that is open now stays below the limit, and those free below it are taken.
    few.rlim_cur = static_cast<rlim_t>(highest() + 1 + left);
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) throw std::runtime_error("setrlimit failed");
    for (int fd = dup(STDERR_FILENO); fd >= 0; fd = dup(STDERR_FILENO)) taken_.push_back(fd);
    for (int i = 0; i < left; ++i) give_back();
  }
  ~FewDescriptors() {
    while (!taken_.empty()) give_back();
    setrlimit(RLIMIT_NOFILE, &before_);
  }
  FewDescriptors(FewDescriptors const&) = delete;
  FewDescriptors& operator=(FewDescriptors const&) = delete;

 private:
  [[nodiscard]] int highest() const {
    int found = 0;
    for (int fd = 0; fd < 65536; ++fd)
      if (fcntl(fd, F_GETFD) >= 0) found = fd;
    return found;
  }
  void give_back() {
    close(taken_.back());
    taken_.pop_back();
  }

  rlimit before_{};
  std::vector<int> taken_;
};

}  // namespace switchyard::test
