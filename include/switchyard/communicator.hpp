// The ranks of a job and how they find one another.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Job;
class Store;
class TcpStoreServer;

struct CommunicatorOptions {
  int rank = 0;
  int size = 1;
  // host:port where rank 0 serves the store (or where one is served already, with serve = false).
  std::string address = "127.0.0.1:29400";
  // Ranks of one job share it; a connection that does not show it is refused.
  std::string token;
  // Rank 0 serves the store itself. False when a launcher does.
  bool serve = true;
  // Deadline for every wait of the rendezvous; 0 takes SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
};

// The meeting point of one job, on a free port of this machine (SWITCHYARD_LISTEN): for launchers that have a way
// of their own to tell the ranks its address. They connect with serve = false. To live until all ranks have
// connected.
class StoreServer {
 public:
  // `token`: as in CommunicatorOptions.
  explicit StoreServer(std::string const& token);
  [[nodiscard]] std::string const& address() const noexcept { return address_; }  // host:port

 private:
  std::shared_ptr<TcpStoreServer> server_;
  std::string address_;
};

// The time that a rendezvous asked for `timeout` gets, for launchers that let ranks wait before they connect.
// Throws InvalidArgument when it is negative or too long.
std::chrono::milliseconds rendezvous_timeout(std::chrono::milliseconds timeout);

// Copies share the membership; when the last one goes the rank leaves the job.
class Communicator {
 public:
  // Reads the variables of torchrun, mpirun or srun, or SWITCHYARD_RANK / _WORLD_SIZE / _STORE / _TOKEN.
  // Throws InvalidArgument when none of them is set; docs/api.md lists them.
  static Communicator from_environment();
  static Communicator connect(CommunicatorOptions const& options);
  // For ranks that are threads of one process: every thread joins the same store under its own rank.
  static std::shared_ptr<Store> in_process_store();
  static Communicator join(std::shared_ptr<Store> store, int rank, int size,
                           std::chrono::milliseconds timeout = std::chrono::milliseconds{0});

  [[nodiscard]] int rank() const noexcept;
  [[nodiscard]] int size() const noexcept;
  // Waits until every rank has called it. Throws Timeout or PeerLost.
  void barrier();
  // Every rank contributes bytes (16 MiB at most) and receives everybody's, by rank.
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine);

  [[nodiscard]] std::shared_ptr<Job> const& job() const noexcept { return job_; }

 private:
  explicit Communicator(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  std::shared_ptr<Job> job_;
};

}  // namespace switchyard
