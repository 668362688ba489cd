// The parts of DLPack's stable ABI (version 1) that let tensors cross without a Python call: a tensor type offers
// the C exchange table as __dlpack_c_exchange_api__. Layouts are DLPack's.
#pragma once

#include <cstdint>

namespace switchyard::python::dlpack {

struct Version {
  std::uint32_t major;
  std::uint32_t minor;
};

struct Device {
  std::int32_t type;
  std::int32_t id;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

inline constexpr std::uint64_t read_only = 1;  // a bit of ManagedTensor::flags

struct ManagedTensor {
  Version version;
  void* context;
  void (*deleter)(ManagedTensor* self);
  std::uint64_t flags;
  Tensor tensor;
};

struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};

// Functions return 0, or another value with a Python error set.
struct ExchangeApi {
  ExchangeHeader header;
  void* allocate;
  int (*managed_from_object)(void* object, ManagedTensor** out);
  int (*object_from_managed)(ManagedTensor* tensor, void** out);  // takes the tensor over
  int (*borrow_from_object)(void* object, Tensor* out);           // may be null
  int (*current_stream)(std::int32_t device_type, std::int32_t device_id, void** out);
};

inline constexpr std::uint32_t major_version = 1;

}  // namespace switchyard::python::dlpack
