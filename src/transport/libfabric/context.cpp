#include "transport/libfabric/context.hpp"

#include <rdma/fi_errno.h>
#include <unistd.h>

#include <random>

#include "base/check.hpp"
#include "transport/libfabric/ip.hpp"

namespace switchyard::transport::libfabric {

namespace {

constexpr int attempts_for_a_key = 8;  // random ones that are taken already

template <typename T>
Fid<T> owned(T* opened) {
  return Fid<T>(opened, CloseFid{::getpid()});
}

std::uint64_t random_key(std::size_t key_bytes) {
  static thread_local std::random_device source;
  std::uint64_t const key = (std::uint64_t{source()} << 32U) | source();
  return key_bytes >= sizeof key ? key : key & ((std::uint64_t{1} << (8 * key_bytes)) - 1);
}

}  // namespace

bool CloseFid::is_owner() const noexcept {
  return owner == ::getpid();
}

Context::Context(Library const& library, fi_info const& info, std::size_t completions)
    : library_(&library), info_(library.info(&info)) {
  // Completions say that memory is free again; where a write asks for more than that, it says so itself.
  info_->tx_attr->op_flags = 0;
  fabric_ = owned(library.open_fabric(*info_));
  fid_domain* domain = nullptr;
  check(fi_domain(fabric_.get(), info_.get(), &domain, nullptr), "fi_domain");
  domain_ = owned(domain);
  open_queue(completions);
  open_addresses();
  open_endpoint();
}

void Context::open_queue(std::size_t completions) {
  fi_cq_attr attributes{};
  attributes.size = completions;
  attributes.format = FI_CQ_FORMAT_DATA;
  attributes.wait_obj = FI_WAIT_NONE;
  fid_cq* queue = nullptr;
  check(fi_cq_open(domain_.get(), &attributes, &queue, nullptr), "fi_cq_open");
  queue_ = owned(queue);
}

void Context::open_addresses() {
  fi_av_attr attributes{};
  attributes.type = FI_AV_TABLE;
  fid_av* addresses = nullptr;
  check(fi_av_open(domain_.get(), &attributes, &addresses, nullptr), "fi_av_open");
  addresses_ = owned(addresses);
}

void Context::open_endpoint() {
  fid_ep* endpoint = nullptr;
  check(fi_endpoint(domain_.get(), info_.get(), &endpoint, nullptr), "fi_endpoint");
  endpoint_ = owned(endpoint);
  check(fi_ep_bind(endpoint, &queue_->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
  check(fi_ep_bind(endpoint, &addresses_->fid, 0), "fi_ep_bind");
  check(fi_enable(endpoint), "fi_enable");
}

void Context::check(int status, std::string_view what) const {
  if (status == 0) return;
  throw SystemError(fmt::format("libfabric: {} on {}: {}", what, name(), error_text(-status)));
}

std::string Context::name() const {
  std::string const address = ip_text(info_->addr_format, info_->src_addr, info_->src_addrlen);
  return fmt::format("{} / {}{}{}", info_->fabric_attr->prov_name, info_->domain_attr->name,
                     address.empty() ? "" : " / ", address);
}

Address Context::address() const {
  Address own;
  own.provider = info_->fabric_attr->prov_name;
  own.format = info_->addr_format;
  std::size_t bytes = 256;
  own.name.resize(bytes);
  int status = fi_getname(&endpoint_->fid, own.name.data(), &bytes);
  if (status == -FI_ETOOSMALL) {
    own.name.resize(bytes);
    status = fi_getname(&endpoint_->fid, own.name.data(), &bytes);
  }
  check(status, "fi_getname");
  own.name.resize(bytes);
  return own;
}

fi_addr_t Context::add(Address const& peer) {
  fi_addr_t entry = FI_ADDR_NOTAVAIL;
  int const added = fi_av_insert(addresses_.get(), peer.name.data(), 1, &entry, 0, nullptr);
  require(added == 1 && entry != FI_ADDR_NOTAVAIL, "peer address: expected one that {} can use, seen {} others",
          name(), added);
  return entry;
}

Fid<fid_mr> Context::register_memory(void* memory, std::size_t bytes, std::uint64_t access) {
  int status = 0;
  for (int attempt = 0; attempt < attempts_for_a_key; ++attempt) {
    std::uint64_t const key = has_mode(FI_MR_PROV_KEY) ? 0 : random_key(info_->domain_attr->mr_key_size);
    fid_mr* region = nullptr;
    status = fi_mr_reg(domain_.get(), memory, bytes, access, 0, key, 0, &region, nullptr);
    if (status == -FI_ENOKEY && !has_mode(FI_MR_PROV_KEY)) continue;
    if (status != 0) break;
    Fid<fid_mr> made = owned(region);
    enable(*made);
    return made;
  }
  throw SystemError(
      fmt::format("register_memory: {} bytes on {}: {}; the limits are `ulimit -l` and what the NIC has room for",
                  bytes, name(), error_text(-status)));
}

// Where registrations belong to endpoints.
void Context::enable(fid_mr& region) const {
  if (!has_mode(FI_MR_ENDPOINT)) return;
  check(fi_mr_bind(&region, &endpoint_->fid, 0), "fi_mr_bind");
  check(fi_mr_enable(&region), "fi_mr_enable");
}

}  // namespace switchyard::transport::libfabric
