#include "memory/device/driver.hpp"

#include <cuda_runtime_api.h>

#include "base/check.hpp"

namespace switchyard {

namespace {

constexpr unsigned driver_version = 12000;

template <typename Function>
void look_up(Function& function, char const* name) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found{};
  auto const error = cudaGetDriverEntryPointByVersion(name, &entry, driver_version, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess || entry == nullptr)
    throw Unsupported(fmt::format("the CUDA driver does not offer {}", name));
  function = reinterpret_cast<Function>(entry);
}

Driver load() {
  Driver driver{};
  look_up(driver.granularity, "cuMemGetAllocationGranularity");
  look_up(driver.create, "cuMemCreate");
  look_up(driver.release, "cuMemRelease");
  look_up(driver.reserve, "cuMemAddressReserve");
  look_up(driver.unreserve, "cuMemAddressFree");
  look_up(driver.map, "cuMemMap");
  look_up(driver.unmap, "cuMemUnmap");
  look_up(driver.set_access, "cuMemSetAccess");
  look_up(driver.export_handle, "cuMemExportToShareableHandle");
  look_up(driver.import_handle, "cuMemImportFromShareableHandle");
  look_up(driver.address_range, "cuMemGetAddressRange");
  look_up(driver.wait_value, "cuStreamWaitValue32");
  look_up(driver.error_string, "cuGetErrorString");
  return driver;
}

}  // namespace

Driver const& Driver::get() {
  static Driver const driver = load();
  return driver;
}

void check_driver(CUresult result, char const* what) {
  if (result == CUDA_SUCCESS) return;
  char const* text = "unknown error";
  Driver::get().error_string(result, &text);
  if (result == CUDA_ERROR_OUT_OF_MEMORY) throw OutOfMemory(fmt::format("{}: {}", what, text));
  throw SystemError(fmt::format("{}: {}", what, text));
}

}  // namespace switchyard
