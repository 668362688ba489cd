#include "transport/libfabric/library.hpp"

#include <dlfcn.h>
#include <rdma/fi_errno.h>

#include <algorithm>
#include <cstdlib>

#include "base/check.hpp"
#include "base/config.hpp"

namespace switchyard::transport::libfabric {

namespace {

// 1.17 is the first that has a native provider of reliable datagrams over TCP that we have tried.
constexpr std::uint32_t oldest = FI_VERSION(1, 17);
// From 1.18 on, EFA writes by hardware only for those who ask for this version. Newer ones have larger structures
// than the headers of 1.17 know, which providers would fill in.
constexpr std::uint32_t newest = FI_VERSION(1, 18);

std::string loader_error() {
  char const* const text = ::dlerror();
  return text != nullptr ? text : "no reason given";
}

// Symbols have versions; this takes the newest, which is right with older headers as well: structures of libfabric
// are made by libfabric, and only grow at their ends.
template <typename Function>
Function symbol(void* handle, char const* name, std::string const& path) {
  void* const address = ::dlsym(handle, name);
  if (address == nullptr) {
    throw Unsupported(
        fmt::format("libfabric: expected a library with {}, seen {}: {}", name, path, loader_error()));
  }
  return reinterpret_cast<Function>(address);
}

// Before anything of it is loaded. What the user has set stays.
void set_up_providers() {
  // Slingshot's provider delivers immediates only for who says so before it is asked for anything.
  ::setenv("FI_CXI_ENABLE_WRITEDATA", "1", 0);
  // A library of an InfiniBand adapter of old, which some builds of libfabric load, would take over what the
  // process does on SIGINT, SIGTERM, SIGSEGV and others, and write a file into the working directory.
  ::setenv("IPATH_NO_BACKTRACE", "1", 0);
}

}  // namespace

Library Library::load(std::string const& path) {
  set_up_providers();
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw Unsupported(fmt::format(
        "libfabric: {} cannot be loaded: {}; install libfabric 1.17 or newer (Debian: libfabric1), or name "
        "the cluster's own with SWITCHYARD_LIBFABRIC",
        path, loader_error()));
  }
  auto const version = symbol<decltype(&fi_version)>(handle, "fi_version", path)();
  std::string const text = fmt::format("{}.{}", FI_MAJOR(version), FI_MINOR(version));
  if (version < oldest) {
    throw Unsupported(fmt::format("libfabric: expected version 1.17 or newer, seen {} ({})", text, path));
  }
  Library loaded;
  loaded.getinfo_ = symbol<decltype(&fi_getinfo)>(handle, "fi_getinfo", path);
  loaded.freeinfo_ = symbol<decltype(&fi_freeinfo)>(handle, "fi_freeinfo", path);
  loaded.dupinfo_ = symbol<decltype(&fi_dupinfo)>(handle, "fi_dupinfo", path);
  loaded.fabric_ = symbol<decltype(&fi_fabric)>(handle, "fi_fabric", path);
  loaded.strerror_ = symbol<decltype(&fi_strerror)>(handle, "fi_strerror", path);
  loaded.api_ = std::min(version, newest);
  loaded.description_ = fmt::format("{} ({})", text, path);
  return loaded;
}

InfoPtr Library::info(fi_info const* from) const {
  InfoPtr made(dupinfo_(from), FreeInfo{freeinfo_});
  if (!made) throw OutOfMemory("libfabric: no memory for a description of a NIC");
  return made;
}

InfoPtr Library::ask(fi_info const& hints, std::string const& address) const {
  fi_info* found = nullptr;
  bool const anywhere = address.empty();
  int const status =
      getinfo_(api_, anywhere ? nullptr : address.c_str(), nullptr, anywhere ? 0 : FI_SOURCE, &hints, &found);
  InfoPtr list(found, FreeInfo{freeinfo_});
  // An address that no provider can read is an ordinary answer as well, under several names.
  if (status != 0 && status != -FI_ENODATA && anywhere) {
    throw SystemError(fmt::format("libfabric: fi_getinfo: {}", error_text(-status)));
  }
  return status == 0 ? std::move(list) : InfoPtr(nullptr, FreeInfo{freeinfo_});
}

fid_fabric* Library::open_fabric(fi_info& info) const {
  fid_fabric* fabric = nullptr;
  int const status = fabric_(info.fabric_attr, &fabric, nullptr);
  if (status != 0) throw SystemError(fmt::format("libfabric: fi_fabric: {}", error_text(-status)));
  return fabric;
}

std::string Library::error_text(int error) const {
  return strerror_(error);
}

Library const& library() {
  static Library const loaded = Library::load(config_text(Setting::libfabric));
  return loaded;
}

}  // namespace switchyard::transport::libfabric
