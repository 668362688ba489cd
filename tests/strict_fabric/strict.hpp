// A libfabric in front of the machine's own, for tests. Its providers bear the names of NICs that this machine
// lacks and carry everything over TCP, but they demand what those demand, and they end the process where a demand
// is not met: a provider of hardware would go on, and lose or corrupt something later. What is demanded is from
// libfabric's manual (fi_getinfo, fi_mr, fi_cq, fi_cxi, fi_efa, fi_verbs) and, where that leaves something open,
// from what its providers do.
#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>

namespace strict {

// What a provider demands.
struct Profile {
  std::string_view name;
  int mr_mode = 0;
  // An immediate takes a posted receive, as any message does.
  bool receives_for_immediates = false;
  // Unless the environment has this variable as 1, there are no immediates.
  char const* switch_of_immediates = nullptr;
};

// Says what was wrong and ends the process.
[[noreturn]] void violated(std::string const& what);

// The operations of an object: the real ones, and a copy in their place in which some are ours.
template <typename Ops>
struct Table {
  Ops* real = nullptr;
  Ops own{};

  Ops& replace(Ops*& of_object) {
    real = of_object;
    own = *real;
    own.size = real->size < sizeof(Ops) ? real->size : sizeof(Ops);  // newer ones are larger than we know
    of_object = &own;
    return own;
  }
};

// Registered memory. Where registrations belong to endpoints it has neither key nor descriptor until it is bound to
// one and enabled.
struct Memory {
  Table<fi_ops> fid;
  std::byte const* begin = nullptr;
  std::size_t bytes = 0;
  std::uint64_t access = 0;
  void* descriptor = nullptr;  // the real one
  std::uint64_t key = 0;
  bool bound = false;
  bool enabled = false;
};

// One domain and what is open in it. One thread at a time is in a domain (FI_THREAD_DOMAIN), so nothing is locked.
struct Domain {
  Profile const* profile = nullptr;
  Table<fi_ops> domain_fid;
  Table<fi_ops_domain> domain_ops;
  Table<fi_ops_mr> mr;
  Table<fi_ops> queue_fid;
  Table<fi_ops_cq> queue;
  Table<fi_ops> endpoint_fid;
  Table<fi_ops_rma> rma;
  Table<fi_ops_msg> msg;

  fid_ep* endpoint = nullptr;
  bool endpoint_enabled = false;
  bool may_receive = false;  // it was opened with FI_MSG and FI_RECV
  bool immediates_take_receives = false;
  int open_objects = 0;  // itself among them
  std::map<fid const*, Memory> memory;
  std::map<void*, std::uint64_t> posted;  // contexts of operations under way, and what the provider wrote there
  std::deque<void*> receives;             // that wait for an immediate
  std::atomic_flag inside;                // pairs with itself: set by the thread that is in a call, in Inside

  [[nodiscard]] bool memory_belongs_to_endpoint() const { return (profile->mr_mode & FI_MR_ENDPOINT) != 0; }
};

// A call into a domain, of one thread at a time.
class Inside {
 public:
  explicit Inside(Domain& domain) : domain_(domain) {
    if (domain_.inside.test_and_set(std::memory_order_acquire)) violated("two threads are in one domain");
    current() = &domain;
  }
  ~Inside() {
    current() = nullptr;
    domain_.inside.clear(std::memory_order_release);
  }
  Inside(Inside const&) = delete;
  Inside& operator=(Inside const&) = delete;

  // Whether a call into the domain is the real provider's own: it opens endpoints for its connections there.
  static bool is(Domain const& domain) { return current() == &domain; }

 private:
  static Domain const*& current() {
    thread_local Domain const* domain = nullptr;
    return domain;
  }

  Domain& domain_;
};

// The domain that an object belongs to.
Domain& domain_of(void const* object);
// From here on an object is open in it; and until here, when its own close comes.
void opened(void const* object, Domain& domain);
int close_real(fid* object, Domain& domain, Table<fi_ops> const& ops);

// Takes over what is opened in a domain.
Domain& adopt(fid_domain& domain, Profile const& profile);
void adopt(fid_cq& queue, Domain& domain);
void adopt(fid_ep& endpoint, Domain& domain, fi_info const& info);

// An operation begins and ends with its context.
void post(Domain& domain, void* context);
void unpost(Domain& domain, void* context);
// The real descriptor for a range of memory that an operation reads or writes, once it has been checked.
void* check_local(Domain& domain, void const* begin, std::size_t bytes, void* descriptor, std::uint64_t access);

}  // namespace strict
