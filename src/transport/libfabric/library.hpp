// libfabric itself, loaded when it is first needed: a build needs its headers only, a machine without it can run
// everything but this transport, and a cluster's own libfabric (with EFA or Slingshot in it) is the one that is
// used.
#pragma once

#include <rdma/fabric.h>

#include <cstdint>
#include <memory>
#include <string>

namespace switchyard::transport::libfabric {

struct FreeInfo {
  void (*free)(fi_info*) = nullptr;
  void operator()(fi_info* info) const { free(info); }
};
using InfoPtr = std::unique_ptr<fi_info, FreeInfo>;

class Library {
 public:
  // Throws Unsupported, saying what to install, when `path` cannot be loaded or is too old.
  static Library load(std::string const& path);

  // A zeroed one, for hints; or a copy.
  [[nodiscard]] InfoPtr info(fi_info const* from = nullptr) const;
  // What fi_getinfo answers; nothing when it knows of nothing. `address`: of this node, or empty.
  [[nodiscard]] InfoPtr ask(fi_info const& hints, std::string const& address) const;
  fid_fabric* open_fabric(fi_info& info) const;
  [[nodiscard]] std::string error_text(int error) const;
  [[nodiscard]] std::string const& description() const noexcept { return description_; }

 private:
  decltype(&fi_getinfo) getinfo_ = nullptr;
  decltype(&fi_freeinfo) freeinfo_ = nullptr;
  decltype(&fi_dupinfo) dupinfo_ = nullptr;
  decltype(&fi_fabric) fabric_ = nullptr;
  decltype(&fi_strerror) strerror_ = nullptr;
  std::uint32_t api_ = 0;
  std::string description_;
};

// The one that SWITCHYARD_LIBFABRIC names, loaded once and kept: providers have threads and handlers at exit.
// Throws as load() does, at each call.
Library const& library();

}  // namespace switchyard::transport::libfabric
