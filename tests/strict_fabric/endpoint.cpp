// Endpoints, and the queue in which their operations complete.
#include <algorithm>
#include <vector>

#include "strict_fabric/strict.hpp"

namespace strict {
namespace {

// Posts an operation; what the real provider takes is under way.
template <typename Call>
ssize_t posted(Domain& domain, void* context, Call const& call) {
  if (!domain.endpoint_enabled) violated("an operation before the endpoint is enabled");
  post(domain, context);
  ssize_t const status = call();
  if (status != 0) unpost(domain, context);
  return status;
}

ssize_t write_data(fid_ep* endpoint, void const* begin, std::size_t bytes, void* descriptor, std::uint64_t data,
                   fi_addr_t to, std::uint64_t address, std::uint64_t key, void* context) {
  Domain& domain = domain_of(endpoint);
  Inside const inside(domain);
  void* const own = check_local(domain, begin, bytes, descriptor, FI_WRITE);
  return posted(domain, context, [&] {
    return domain.rma.real->writedata(endpoint, begin, bytes, own, data, to, address, key, context);
  });
}

ssize_t write_message(fid_ep* endpoint, fi_msg_rma const* message, std::uint64_t flags) {
  Domain& domain = domain_of(endpoint);
  Inside const inside(domain);
  if ((flags & FI_MORE) != 0) violated("FI_MORE, which EFA has no use for");
  fi_msg_rma real = *message;
  std::vector<void*> descriptors;
  for (std::size_t i = 0; i < message->iov_count; ++i) {
    iovec const& part = message->msg_iov[i];
    descriptors.push_back(check_local(domain, part.iov_base, part.iov_len, message->desc[i], FI_WRITE));
  }
  real.desc = descriptors.data();
  return posted(domain, message->context, [&] { return domain.rma.real->writemsg(endpoint, &real, flags); });
}

ssize_t send(fid_ep* endpoint, void const* begin, std::size_t bytes, void* descriptor, fi_addr_t to,
             void* context) {
  Domain& domain = domain_of(endpoint);
  Inside const inside(domain);
  if (!domain.may_receive) violated("a message of an endpoint that was opened without FI_MSG");
  void* const own = check_local(domain, begin, bytes, descriptor, FI_SEND);
  return posted(domain, context, [&] { return domain.msg.real->send(endpoint, begin, bytes, own, to, context); });
}

// Receives that immediates take are not the real provider's.
ssize_t receive(fid_ep* endpoint, void* begin, std::size_t bytes, void* descriptor, fi_addr_t from, void* context) {
  Domain& domain = domain_of(endpoint);
  Inside const inside(domain);
  if (!domain.may_receive) violated("a receive of an endpoint that was opened without FI_MSG and FI_RECV");
  void* const own = check_local(domain, begin, bytes, descriptor, FI_RECV);
  return posted(domain, context, [&]() -> ssize_t {
    if (!domain.immediates_take_receives) return domain.msg.real->recv(endpoint, begin, bytes, own, from, context);
    domain.receives.push_back(context);
    return 0;
  });
}

void take_receive(Domain& domain, fi_cq_data_entry& entry) {
  if (domain.receives.empty()) violated("an immediate that finds no posted receive");
  entry.op_context = domain.receives.front();
  domain.receives.pop_front();
  unpost(domain, entry.op_context);
}

ssize_t read(fid_cq* queue, void* entries, std::size_t count) {
  Domain& domain = domain_of(queue);
  Inside const inside(domain);
  ssize_t const found = domain.queue.real->read(queue, entries, count);
  for (ssize_t i = 0; i < found; ++i) {
    auto& entry = static_cast<fi_cq_data_entry*>(entries)[i];
    if ((entry.flags & FI_REMOTE_WRITE) == 0) {
      unpost(domain, entry.op_context);
    } else if (domain.immediates_take_receives) {
      take_receive(domain, entry);
    }
  }
  return found;
}

ssize_t read_error(fid_cq* queue, fi_cq_err_entry* entry, std::uint64_t flags) {
  Domain& domain = domain_of(queue);
  Inside const inside(domain);
  ssize_t const found = domain.queue.real->readerr(queue, entry, flags);
  if (found > 0 && domain.posted.contains(entry->op_context)) unpost(domain, entry->op_context);
  return found;
}

int close_queue(fid* object) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  if (domain.endpoint != nullptr) violated("a queue is closed before the endpoint that is bound to it");
  return close_real(object, domain, domain.queue_fid);
}

int enable(fid* object, int command, void* argument) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  int const status = domain.endpoint_fid.real->control(object, command, argument);
  if (status == 0 && command == FI_ENABLE) domain.endpoint_enabled = true;
  return status;
}

// Slingshot's provider keeps an endpoint open to which memory is still bound, and says that it is busy.
int close_endpoint(fid* object) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  if (std::ranges::any_of(domain.memory, [](auto const& each) { return each.second.bound; }))
    violated("an endpoint is closed before memory that is bound to it");
  domain.endpoint = nullptr;
  domain.posted.clear();
  domain.receives.clear();
  return close_real(object, domain, domain.endpoint_fid);
}

}  // namespace

void adopt(fid_cq& queue, Domain& domain) {
  opened(&queue, domain);
  domain.queue_fid.replace(queue.fid.ops).close = close_queue;
  fi_ops_cq& ops = domain.queue.replace(queue.ops);
  ops.read = read;
  ops.readerr = read_error;
}

void adopt(fid_ep& endpoint, Domain& domain, fi_info const& info) {
  if (domain.endpoint != nullptr) violated("a second endpoint in a domain, which this library knows nothing of");
  opened(&endpoint, domain);
  domain.endpoint = &endpoint;
  domain.may_receive = (info.caps & FI_MSG) != 0 && (info.caps & FI_RECV) != 0;
  domain.immediates_take_receives = (info.mode & FI_RX_CQ_DATA) != 0;
  fi_ops& fid = domain.endpoint_fid.replace(endpoint.fid.ops);
  fid.control = enable;
  fid.close = close_endpoint;
  fi_ops_rma& rma = domain.rma.replace(endpoint.rma);
  rma.writedata = write_data;
  rma.writemsg = write_message;
  fi_ops_msg& msg = domain.msg.replace(endpoint.msg);
  msg.send = send;
  msg.recv = receive;
}

}  // namespace strict
