// Loads and stores with an order, as the PTX memory model names them. Their scope is sys, unless the name says
// otherwise, because peers may be other GPUs or processes. Each use says which other access it pairs with.
#pragma once

#include <cstdint>

namespace switchyard::cuda::ptx {

__device__ inline std::uint64_t load_acquire(std::uint64_t const* at) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
  return value;
}

__device__ inline std::uint32_t load_acquire(std::uint32_t const* at) {
  std::uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

__device__ inline void store_release(std::uint64_t* at, std::uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

__device__ inline void store_release(std::uint32_t* at, std::uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");
}

__device__ inline std::uint64_t load_relaxed(std::uint64_t const* at) {
  std::uint64_t value;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
  return value;
}

__device__ inline std::uint32_t load_relaxed(std::uint32_t const* at) {
  std::uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

__device__ inline void store_relaxed(std::uint64_t* at, std::uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// The greater of the two values stays. The store is a release.
__device__ inline void max_release(std::uint64_t* at, std::uint64_t value) {
  asm volatile("red.release.sys.global.max.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// Brings a line into the L2 cache.
__device__ inline void prefetch(void const* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

// Loads only if `wanted` holds. Several of these loads are issued before any is used; plain conditional loads the
// compiler would put off until the condition is tested again.
__device__ inline uint4 load_if(bool wanted, uint4 const* at) {
  uint4 value;
  asm volatile(
      "{\n"
      ".reg .pred wanted;\n"
      "setp.ne.u32 wanted, %5, 0;\n"
      "@wanted ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
      : "l"(at), "r"(static_cast<std::uint32_t>(wanted))
      : "memory");
  return value;
}

// Returns the value before the addition.
__device__ inline std::uint32_t add_relaxed(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t before;
  asm volatile("atom.relaxed.sys.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
  return before;
}

// Returns the value before the addition. The scope is gpu: only blocks of one kernel add to the counter.
__device__ inline std::uint32_t add_acq_rel(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
  return before;
}

__device__ inline void fence_sys() {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
}

// Orders the ordinary accesses of this thread before the fence with the copy engine's accesses after it, in global
// and shared memory. It does nothing on GPUs without a copy engine.
__device__ inline void fence_proxy_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

// The same for shared memory alone, which does not wait for stores elsewhere. After bulk_copy.cuh's barrier_init(),
// too: the copy engine must find the barrier.
__device__ inline void fence_proxy_async_shared() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// A barrier of the block besides the one of __syncthreads(). Whole warps come to it: some wait there until all have
// come, and others only say that they have, and go on.
__device__ inline void block_barrier() {
  asm volatile("barrier.sync 1, %0;" ::"r"(blockDim.x) : "memory");
}
__device__ inline void block_arrive() {
  asm volatile("barrier.arrive 1, %0;" ::"r"(blockDim.x) : "memory");
}

// Waits until the kernels before this one in the stream have ended and their writes are visible. A kernel that may
// start early (launch_next()) does this before it reads anything. It does nothing on GPUs that start no kernel
// early.
__device__ inline void wait_for_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Nanoseconds. The clock advances in steps, whose length differs between GPUs.
__device__ inline std::uint64_t global_timer() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

}  // namespace switchyard::cuda::ptx
