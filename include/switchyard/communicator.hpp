// The ranks of a job, and how they find one another.
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
  // host:port where rank 0 serves the store (or, with serve = false, where one is served already): a name, an IPv4
  // address, or an IPv6 address in brackets.
  std::string address = "127.0.0.1:29400";
  // A secret that the ranks of one job share. Ranks and store show each other that they know it, and never send it.
  // Without one all ranks have to be on this machine.
  std::string token;
  // Whether rank 0 serves the store itself. False when a launcher does.
  bool serve = true;
  // Deadline of every wait of the rendezvous; 0: SWITCHYARD_RENDEZVOUS_TIMEOUT_MS.
  std::chrono::milliseconds timeout{0};
  // The token follows from what others may know, so all ranks have to be on this machine. from_environment sets it
  // where SWITCHYARD_TOKEN is not set.
  bool derived_token = false;
  // Ranks that give the same name form a node, whose ranks map each other's memory. Empty: SWITCHYARD_NODE, and
  // without that ranks form a node that can: those on one machine, in one network namespace, of one user.
  std::string node{};
};

// The meeting point of one job, on a free port of this machine (SWITCHYARD_LISTEN), for launchers that hand its
// address to the ranks in a way of their own. Ranks connect to it with serve = false. It must live until all of
// them have connected.
class StoreServer {
 public:
  // `token`: as in CommunicatorOptions. `host`: a name or address of this machine by which the others reach it, for
  // ranks on several machines; empty: all of them are on this one. Throws SystemError when it cannot listen,
  // InvalidArgument when `host` stands for loopback only, or for another machine.
  explicit StoreServer(std::string const& token, std::string const& host = {});
  [[nodiscard]] std::string const& address() const noexcept { return address_; }  // host:port

 private:
  std::shared_ptr<TcpStoreServer> server_;
  std::string address_;
};

// How long a rendezvous with that `timeout` waits, for launchers that let ranks wait before they connect. Throws
// InvalidArgument when it is negative or longer than a day.
std::chrono::milliseconds rendezvous_timeout(std::chrono::milliseconds timeout);

// Membership of this rank in a job. Copies share it; when the last one goes, the rank leaves the job.
//
// Calls that make a communicator are collective. They throw InvalidArgument, Timeout (which names the rank that did
// not come), PeerLost, Unsupported (a rank is on another machine) or SystemError.
class Communicator {
 public:
  // Reads the variables of torchrun, mpirun or srun, or SWITCHYARD_RANK / _WORLD_SIZE / _STORE / _TOKEN;
  // docs/api.md lists them. Throws InvalidArgument when none of them is set.
  static Communicator from_environment();
  static Communicator connect(CommunicatorOptions const& options);
  // For ranks that are threads of one process: each joins the same store under its own rank.
  static std::shared_ptr<Store> in_process_store();
  // `node` as in CommunicatorOptions.
  static Communicator join(std::shared_ptr<Store> store, int rank, int size,
                           std::chrono::milliseconds timeout = std::chrono::milliseconds{0},
                           std::string const& node = {});

  [[nodiscard]] int rank() const noexcept;
  [[nodiscard]] int size() const noexcept;
  // Nodes of the job, numbered in the order of their first ranks; and by rank, the node.
  [[nodiscard]] int num_nodes() const noexcept;
  [[nodiscard]] std::vector<int> node_by_rank() const;
  // Waits until every rank has called it. Throws Timeout or PeerLost.
  void barrier();
  // Every rank brings bytes (16 MiB at most) and receives those of all, by rank. Throws Timeout, PeerLost or
  // InvalidArgument.
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine);

  [[nodiscard]] std::shared_ptr<Job> const& job() const noexcept { return job_; }

 private:
  explicit Communicator(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  std::shared_ptr<Job> job_;
};

}  // namespace switchyard
