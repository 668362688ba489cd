// What libfabric has open for one endpoint: fabric, domain, completion queue, address vector, endpoint. The domain
// is its own, so that ranks that are threads share nothing, and a provider needs no locks.
#pragma once

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "transport/libfabric/library.hpp"
#include "transport/libfabric/wire.hpp"

namespace switchyard::transport::libfabric {

// Closes what it holds, but not in a child of fork(): a provider that closes there takes the parent's sockets out
// of the poll set that both share.
struct CloseFid {
  int owner;  // process

  template <typename T>
  void operator()(T* opened) const {
    if (is_owner()) fi_close(&opened->fid);
  }
  [[nodiscard]] bool is_owner() const noexcept;
};
template <typename T>
using Fid = std::unique_ptr<T, CloseFid>;

class Context {
 public:
  // `completions`: how many may wait in the queue. Throws SystemError.
  Context(Library const& library, fi_info const& info, std::size_t completions);

  [[nodiscard]] fi_info const& info() const noexcept { return *info_; }
  [[nodiscard]] fid_domain* domain() const noexcept { return domain_.get(); }
  [[nodiscard]] fid_cq* queue() const noexcept { return queue_.get(); }
  [[nodiscard]] fid_ep* endpoint() const noexcept { return endpoint_.get(); }
  [[nodiscard]] bool has_mode(int mr_mode) const noexcept { return (info_->domain_attr->mr_mode & mr_mode) != 0; }

  // Provider, format and name.
  [[nodiscard]] Address address() const;
  // Of a peer, which must be like ours. Entries stay: removing one while a write is posted has crashed others.
  fi_addr_t add(Address const& peer);
  // Registers memory for `access`; throws SystemError. In a domain without provider keys, keys are random, so that
  // who merely finds the port cannot write.
  Fid<fid_mr> register_memory(void* memory, std::size_t bytes, std::uint64_t access);

  // Before the memory of posted receives is unregistered; but where registrations belong to the endpoint, they go
  // first.
  void close_endpoint() noexcept { endpoint_.reset(); }

  [[nodiscard]] std::string error_text(int error) const { return library_->error_text(error); }
  [[nodiscard]] std::string name() const;

 private:
  void open_queue(std::size_t completions);
  void open_addresses();
  void open_endpoint();
  void check(int status, std::string_view what) const;
  void enable(fid_mr& region) const;

  Library const* library_;
  InfoPtr info_;
  Fid<fid_fabric> fabric_;
  Fid<fid_domain> domain_;
  Fid<fid_cq> queue_;
  Fid<fid_av> addresses_;
  Fid<fid_ep> endpoint_;
};

}  // namespace switchyard::transport::libfabric
