// Loads and stores with an order, as the PTX memory model names them. Scope sys: peers may be other GPUs or
// processes. Each use says which other access it pairs with.
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

// The greater of both stays.
__device__ inline void max_release(std::uint64_t* at, std::uint64_t value) {
  asm volatile("red.release.sys.global.max.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// Into the L2.
__device__ inline void prefetch(void const* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}

// Nothing is loaded unless `wanted`. Loads by this are all asked for before any is used: the compiler would put
// them off until the condition is looked at again.
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

// Returns the value before.
__device__ inline std::uint32_t add_relaxed(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t before;
  asm volatile("atom.relaxed.sys.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
  return before;
}

// Returns the value before.
__device__ inline std::uint32_t add_acq_rel(std::uint32_t* at, std::uint32_t value) {
  std::uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(at), "r"(value) : "memory");
  return before;
}

__device__ inline void fence_sys() {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
}

// Orders this thread's ordinary accesses before with the copy engine's after, in global and shared memory. Nothing
// on GPUs without a copy engine.
__device__ inline void fence_proxy_async() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async;" ::: "memory");
#endif
}

// Until the kernels before in the stream are done and what they wrote is there: first of all in a kernel that may
// start early (launch_next()). Nothing on GPUs that do not do that.
__device__ inline void wait_for_kernel_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Nanoseconds; ticks coarsely.
__device__ inline std::uint64_t global_timer() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

}  // namespace switchyard::cuda::ptx
