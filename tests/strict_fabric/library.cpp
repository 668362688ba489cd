// What libfabric exports.
#include <dlfcn.h>
#include <rdma/fi_errno.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "strict_fabric/strict.hpp"

namespace strict {
namespace {

constexpr std::array profiles{
    // Slingshot. Registrations belong to endpoints, and immediates are for those who ask for them beforehand.
    Profile{.name = "cxi",
            .mr_mode = FI_MR_ENDPOINT | FI_MR_ALLOCATED,
            .switch_of_immediates = "FI_CXI_ENABLE_WRITEDATA"},
    Profile{.name = "efa", .mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY},
    // InfiniBand below reliable datagrams, where an immediate takes a receive as it does in the hardware.
    Profile{.name = "verbs;ofi_rxm",
            .mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY,
            .receives_for_immediates = true},
    // A NIC of tomorrow, which demands everything.
    Profile{.name = "strictest",
            .mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT,
            .receives_for_immediates = true},
};

struct Real {
  decltype(&fi_version) version;
  decltype(&fi_getinfo) getinfo;
  decltype(&fi_freeinfo) freeinfo;
  decltype(&fi_dupinfo) dupinfo;
  decltype(&fi_fabric) fabric;
  decltype(&fi_strerror) strerror;
};

Real const& real() {
  static Real const loaded = [] {
    void* const handle = ::dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) violated("libfabric.so.1 cannot be loaded");
    auto const find = [&](auto& function, char const* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
      if (function == nullptr) violated(std::string("libfabric.so.1 has no ") + name);
    };
    Real found{};
    find(found.version, "fi_version");
    find(found.getinfo, "fi_getinfo");
    find(found.freeinfo, "fi_freeinfo");
    find(found.dupinfo, "fi_dupinfo");
    find(found.fabric, "fi_fabric");
    find(found.strerror, "fi_strerror");
    return found;
  }();
  return loaded;
}

// The provider that does the work, as it is called.
std::string& native() {
  static std::string name;
  return name;
}

bool is_native(fi_info const& info) {
  std::string_view const name = info.fabric_attr->prov_name;
  return name == "net" || name == "tcp";
}

void rename(char*& name, std::string_view to) {
  std::free(name);
  name = ::strndup(to.data(), to.size());
}

bool has_immediates(Profile const& profile, fi_info const& hints) {
  if (hints.domain_attr->cq_data_size == 0 || profile.switch_of_immediates == nullptr) return true;
  char const* const value = std::getenv(profile.switch_of_immediates);
  return value != nullptr && std::string_view(value) == "1";
}

// Whether an application that says this can live with what the provider demands.
bool agrees(Profile const& profile, fi_info const& hints) {
  bool const memory = (profile.mr_mode & ~hints.domain_attr->mr_mode) == 0;
  bool const receives = !profile.receives_for_immediates || (hints.mode & FI_RX_CQ_DATA) != 0;
  bool const contexts = (hints.mode & FI_CONTEXT2) != 0;
  return memory && receives && contexts && has_immediates(profile, hints);
}

fi_info* offer(Profile const& profile, fi_info const& from, fi_info const& hints) {
  fi_info* const info = real().dupinfo(&from);
  rename(info->fabric_attr->prov_name, profile.name);
  info->domain_attr->mr_mode = profile.mr_mode;
  info->mode |= FI_CONTEXT2;
  if (profile.receives_for_immediates && hints.domain_attr->cq_data_size > 0) info->mode |= FI_RX_CQ_DATA;
  return info;
}

// As the provider that does the work knows it.
struct Undressed {
  explicit Undressed(fi_info const& info) : own(real().dupinfo(&info)) {
    rename(own->fabric_attr->prov_name, native());
    own->mode &= ~(FI_CONTEXT2 | FI_RX_CQ_DATA);
    own->domain_attr->mr_mode &= ~FI_MR_ENDPOINT;
  }
  ~Undressed() { real().freeinfo(own); }
  Undressed(Undressed const&) = delete;
  Undressed& operator=(Undressed const&) = delete;

  fi_info* own;
};

Table<fi_ops_fabric>& fabric_table() {
  static Table<fi_ops_fabric> table;
  return table;
}

int open_endpoint(fid_domain* domain, fi_info* info, fid_ep** endpoint, void* context) {
  Domain& in = domain_of(domain);
  if (Inside::is(in)) return in.domain_ops.real->endpoint(domain, info, endpoint, context);
  Inside const inside(in);
  Undressed const undressed(*info);
  int const status = in.domain_ops.real->endpoint(domain, undressed.own, endpoint, context);
  if (status == 0) adopt(**endpoint, in, *info);
  return status;
}

int open_queue(fid_domain* domain, fi_cq_attr* attributes, fid_cq** queue, void* context) {
  Domain& in = domain_of(domain);
  if (Inside::is(in)) return in.domain_ops.real->cq_open(domain, attributes, queue, context);
  Inside const inside(in);
  int const status = in.domain_ops.real->cq_open(domain, attributes, queue, context);
  if (status == 0) adopt(**queue, in);
  return status;
}

int open_domain(fid_fabric* fabric, fi_info* info, fid_domain** domain, void* context) {
  auto const* const profile =
      std::ranges::find(profiles, std::string_view(info->fabric_attr->prov_name), &Profile::name);
  if (profile == profiles.end()) violated("a domain of a provider that was not offered");
  if ((info->domain_attr->mr_mode & profile->mr_mode) != profile->mr_mode)
    violated("a domain without modes that the provider demands");
  Undressed const undressed(*info);
  int const status = fabric_table().real->domain(fabric, undressed.own, domain, context);
  if (status != 0) return status;
  Domain& made = adopt(**domain, *profile);
  made.domain_ops.own.endpoint = open_endpoint;
  made.domain_ops.own.cq_open = open_queue;
  return 0;
}

}  // namespace

void violated(std::string const& what) {
  std::fprintf(stderr, "strict provider: %s\n", what.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace strict

using namespace strict;

extern "C" {

[[gnu::visibility("default")]] uint32_t fi_version() {
  return real().version();
}

[[gnu::visibility("default")]] char const* fi_strerror(int error) {
  return real().strerror(error);
}

[[gnu::visibility("default")]] fi_info* fi_dupinfo(fi_info const* info) {
  return real().dupinfo(info);
}

[[gnu::visibility("default")]] void fi_freeinfo(fi_info* info) {
  real().freeinfo(info);
}

[[gnu::visibility("default")]] int fi_getinfo(uint32_t version, char const* node, char const* service,
                                              uint64_t flags, fi_info const* hints, fi_info** found) {
  *found = nullptr;
  fi_info* all = nullptr;
  int const status = real().getinfo(version, node, service, flags, hints, &all);
  if (status != 0) return status;
  fi_info** end = found;
  for (Profile const& profile : profiles) {
    if (!agrees(profile, *hints)) continue;
    for (fi_info const* info = all; info != nullptr; info = info->next) {
      if (!is_native(*info)) continue;
      static std::once_flag once;
      std::call_once(once, [&] { native() = info->fabric_attr->prov_name; });
      *end = offer(profile, *info, *hints);
      end = &(*end)->next;
    }
  }
  real().freeinfo(all);
  return *found != nullptr ? 0 : -FI_ENODATA;
}

[[gnu::visibility("default")]] int fi_fabric(fi_fabric_attr* attributes, fid_fabric** fabric, void* context) {
  fi_fabric_attr undressed = *attributes;
  std::string name = native();
  undressed.prov_name = name.data();
  int const status = real().fabric(&undressed, fabric, context);
  if (status != 0) return status;
  // All fabrics of the provider have the same.
  static std::once_flag once;
  std::call_once(once, [&] { fabric_table().replace((*fabric)->ops).domain = open_domain; });
  (*fabric)->ops = &fabric_table().own;
  return 0;
}

}  // extern "C"
