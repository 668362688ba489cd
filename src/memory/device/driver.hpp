// The calls of the CUDA driver that the runtime does not offer. They are looked up at run time, so that the library
// loads on machines without a driver.
#pragma once

#include <cuda.h>

namespace switchyard {

struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) unreserve;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;
  decltype(&cuMemExportToShareableHandle) export_handle;
  decltype(&cuMemImportFromShareableHandle) import_handle;
  decltype(&cuMemGetAddressRange) address_range;
  decltype(&cuStreamWaitValue32) wait_value;
  decltype(&cuGetErrorString) error_string;

  // Throws Unsupported when the driver lacks one of them.
  static Driver const& get();
};

void check_driver(CUresult result, char const* what);

}  // namespace switchyard
