// Domains, and the memory that is registered in them.
#include <mutex>
#include <random>

#include "strict_fabric/strict.hpp"

namespace strict {
namespace {

struct Known {
  std::mutex mutex;
  std::map<void const*, Domain*> domains;  // by object
};

Known& known() {
  static auto& all = *new Known;  // never destroyed: providers close objects at exit
  return all;
}

int close_domain(fid* object) {
  Domain* const domain = &domain_of(object);
  if (domain->open_objects != 1) violated("a domain is closed before what is open in it");
  int const status = close_real(object, *domain, domain->domain_fid);
  delete domain;
  return status;
}

int bind_memory(fid* object, fid* to, std::uint64_t flags) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  Memory& memory = domain.memory.at(object);
  if (!domain.memory_belongs_to_endpoint()) return memory.fid.real->bind(object, to, flags);
  if (domain.endpoint == nullptr || to != &domain.endpoint->fid)
    violated("memory is bound to no endpoint of its domain");
  if (memory.bound) violated("memory is bound twice");
  memory.bound = true;
  return 0;
}

int enable_memory(fid* object, int command, void* argument) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  Memory& memory = domain.memory.at(object);
  if (!domain.memory_belongs_to_endpoint() || command != FI_ENABLE)
    return memory.fid.real->control(object, command, argument);
  if (!memory.bound || memory.enabled) violated("memory is enabled that is bound to no endpoint, or twice");
  if (!domain.endpoint_enabled) violated("memory is enabled before its endpoint");
  auto* const registration = reinterpret_cast<fid_mr*>(object);
  registration->key = memory.key;
  registration->mem_desc = &memory;
  memory.enabled = true;
  return 0;
}

int close_memory(fid* object) {
  Domain& domain = domain_of(object);
  Inside const inside(domain);
  auto const memory = domain.memory.extract(object);
  return close_real(object, domain, memory.mapped().fid);
}

int register_memory(fid* object, void const* begin, std::size_t bytes, std::uint64_t access, std::uint64_t offset,
                    std::uint64_t key, std::uint64_t flags, fid_mr** made, void* context) {
  Domain& domain = domain_of(object);
  if (Inside::is(domain))
    return domain.mr.real->reg(object, begin, bytes, access, offset, key, flags, made, context);
  Inside const inside(domain);
  int const status = domain.mr.real->reg(object, begin, bytes, access, offset, key, flags, made, context);
  if (status != 0) return status;
  fid_mr& registration = **made;
  opened(&registration, domain);
  Memory& memory = domain.memory[&registration.fid];
  memory.begin = static_cast<std::byte const*>(begin);
  memory.bytes = bytes;
  memory.access = access;
  memory.descriptor = registration.mem_desc;
  memory.key = registration.key;
  fi_ops& ops = memory.fid.replace(registration.fid.ops);
  ops.bind = bind_memory;
  ops.control = enable_memory;
  ops.close = close_memory;
  bool const later = domain.memory_belongs_to_endpoint();
  registration.key = later ? FI_KEY_NOTAVAIL : memory.key;
  registration.mem_desc = later ? nullptr : &memory;
  return 0;
}

}  // namespace

Domain& domain_of(void const* object) {
  std::lock_guard const lock(known().mutex);
  auto const found = known().domains.find(object);
  if (found == known().domains.end()) violated("an object that is not open");
  return *found->second;
}

void opened(void const* object, Domain& domain) {
  std::lock_guard const lock(known().mutex);
  known().domains[object] = &domain;
  ++domain.open_objects;
}

int close_real(fid* object, Domain& domain, Table<fi_ops> const& ops) {
  {
    std::lock_guard const lock(known().mutex);
    known().domains.erase(object);
    --domain.open_objects;
  }
  object->ops = ops.real;
  return ops.real->close(object);
}

Domain& adopt(fid_domain& domain, Profile const& profile) {
  auto* const made = new Domain;
  made->profile = &profile;
  opened(&domain, *made);
  made->domain_fid.replace(domain.fid.ops).close = close_domain;
  made->domain_ops.replace(domain.ops);
  made->mr.replace(domain.mr).reg = register_memory;
  return *made;
}

// A provider that demands FI_CONTEXT2 keeps what it needs in the memory that the context names.
void post(Domain& domain, void* context) {
  static thread_local std::mt19937_64 random;
  std::uint64_t const pattern = random();
  if (context == nullptr) violated("an operation without a context");
  if (!domain.posted.emplace(context, pattern).second)
    violated("a context is used again before its operation is over");
  for (void*& word : static_cast<fi_context2*>(context)->internal) word = reinterpret_cast<void*>(pattern);
}

void unpost(Domain& domain, void* context) {
  auto const found = domain.posted.find(context);
  if (found == domain.posted.end()) violated("a completion of an operation that was not posted");
  for (void* const word : static_cast<fi_context2*>(context)->internal) {
    if (word != reinterpret_cast<void*>(found->second))
      violated("a context was written to while its operation was under way");
  }
  domain.posted.erase(found);
}

void* check_local(Domain& domain, void const* begin, std::size_t bytes, void* descriptor, std::uint64_t access) {
  bool const demanded = (domain.profile->mr_mode & FI_MR_LOCAL) != 0;
  if (!demanded || bytes == 0) return nullptr;
  for (auto const& [object, memory] : domain.memory) {
    if (&memory != descriptor) continue;
    auto const* const from = static_cast<std::byte const*>(begin);
    if (from < memory.begin || from + bytes > memory.begin + memory.bytes)
      violated("an operation goes beyond the memory whose descriptor it gives");
    if ((memory.access & access) != access) violated("memory is used for what it was not registered for");
    return memory.descriptor;
  }
  violated("an operation on memory without a descriptor of a registration");
}

}  // namespace strict
