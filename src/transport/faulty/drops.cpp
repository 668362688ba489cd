#include "transport/faulty/drops.hpp"

#include <atomic>
#include <mutex>
#include <utility>

#include "base/check.hpp"

namespace switchyard::transport::faulty {
namespace {

struct Orders {
  std::mutex mutex;
  std::vector<Drop> drops;  // guarded
  // Stored (release) with the mutex held, loaded (acquire) by drops_ordered(): who sees a number finds its drops.
  std::atomic<std::uint64_t> ordered{0};
};

Orders& orders() {
  static Orders all;
  return all;
}

}  // namespace

DropOnPurpose::DropOnPurpose(std::vector<Drop> drops) {
  Orders& all = orders();
  std::scoped_lock const lock(all.mutex);
  require(all.drops.empty(), "drops: expected one list of them at a time, seen another that lives");
  all.drops = std::move(drops);
  all.ordered.store(all.ordered.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

DropOnPurpose::~DropOnPurpose() {
  Orders& all = orders();
  std::scoped_lock const lock(all.mutex);
  all.drops.clear();
}

std::uint64_t drops_ordered() noexcept {
  return orders().ordered.load(std::memory_order_acquire);
}

std::vector<Drop> drops_of(int endpoint) {
  Orders& all = orders();
  std::scoped_lock const lock(all.mutex);
  std::vector<Drop> found;
  for (Drop const& drop : all.drops)
    if (drop.endpoint == endpoint) found.push_back(drop);
  return found;
}

}  // namespace switchyard::transport::faulty
