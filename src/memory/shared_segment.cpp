#include "memory/shared_segment.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <fstream>
#include <string>

#include "base/check.hpp"
#include "base/config.hpp"
#include "memory/host_limits.hpp"
#include "memory/numa_binding.hpp"
#include "memory/segment_registry.hpp"

namespace switchyard {

namespace {

constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

using Registry = SegmentRegistry<SharedSegment>;

// madvise() succeeds even where the kernel never gives huge pages to shared memory, so the policy file is read.
bool huge_pages_allowed() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  std::string policy;
  std::getline(file, policy);
  for (char const* const word : {"[advise]", "[within_size]", "[always]", "[force]"}) {
    if (policy.find(word) != std::string::npos) return true;
  }
  return false;
}

bool advise_huge_pages(std::byte* data, std::size_t bytes) {
  if (bytes < huge_page_bytes || config_text(Setting::huge_pages) == "off" || !huge_pages_allowed()) return false;
  return ::madvise(data, bytes, MADV_HUGEPAGE) == 0;
}

}  // namespace

SharedSegment::SharedSegment(UniqueFd fd, std::size_t bytes) : Segment(bytes, bytes), fd_(std::move(fd)) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
  if (at == MAP_FAILED && errno == ENOMEM)
    throw OutOfMemory(fmt::format("mapping a segment of {} bytes: no memory; this process may map {} bytes more",
                                  bytes, free_address_space()));
  if (at == MAP_FAILED) throw_errno(fmt::format("mapping a segment of {} bytes", bytes));
  data_ = static_cast<std::byte*>(at);
}

std::shared_ptr<SharedSegment> SharedSegment::create(std::size_t bytes) {
  UniqueFd fd(check_call(::memfd_create("switchyard", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create"));
  check_call(::fchmod(fd.get(), S_IRUSR | S_IWUSR), "fchmod of a memfd");
  check_call(::ftruncate(fd.get(), static_cast<off_t>(bytes)), "sizing a memfd");
  check_call(::fcntl(fd.get(), F_ADD_SEALS, size_seals), "sealing a memfd");
  std::shared_ptr<SharedSegment> segment(new SharedSegment(std::move(fd), bytes));
  segment->huge_pages_ = advise_huge_pages(segment->data_, bytes);
  segment->numa_bound_ = config_text(Setting::numa) == "auto" && bind_to_local_numa_node(segment->data_, bytes);
  segment->id_ = Registry::instance().add(segment);
  return segment;
}

std::shared_ptr<SharedSegment> SharedSegment::attach(UniqueFd fd, std::size_t bytes) {
  int const seals = check_call(::fcntl(fd.get(), F_GET_SEALS), "reading the seals of a peer's segment");
  require((seals & size_seals) == size_seals, "peer's segment: expected size seals {:#x}, seen {:#x}", size_seals,
          seals);
  struct stat status {};
  check_call(::fstat(fd.get(), &status), "fstat of a peer's segment");
  require(static_cast<std::size_t>(status.st_size) == bytes, "peer's segment: expected {} bytes, seen {}", bytes,
          status.st_size);
  std::shared_ptr<SharedSegment> segment(new SharedSegment(std::move(fd), bytes));
  segment->huge_pages_ = advise_huge_pages(segment->data_, bytes);
  segment->fd_ = {};  // the mapping is enough, and a process has few descriptors
  return segment;
}

std::shared_ptr<SharedSegment> SharedSegment::find_in_process(std::uint64_t id) {
  return Registry::instance().find(id);
}

void SharedSegment::discard(std::size_t offset, std::size_t bytes) {
  // The pages go for all ranks that map them. Where the file system cannot do that, they stay.
  static_cast<void>(::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                                static_cast<off_t>(bytes)));
}

SharedSegment::~SharedSegment() {
  if (id_ != 0) Registry::instance().remove(id_);
  if (data_ != nullptr) ::munmap(data_, capacity());
}

}  // namespace switchyard
