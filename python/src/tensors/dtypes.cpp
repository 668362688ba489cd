#include "tensors/dtypes.hpp"

#include <array>

namespace switchyard::python {

namespace {

// DLPack's type codes.
enum Code : std::uint8_t { integer = 0, unsigned_integer = 1, floating = 2, brain = 4, boolean = 6, e4m3fn = 10 };

struct Row {
  DType dtype;
  Code code;
  std::uint8_t bits;
  char const* name;
};

// A bool is a byte. u8 is shown as uint8, so that row comes before bool.
constexpr std::array table{
    Row{DType::bf16, brain, 16, "bfloat16"},      Row{DType::f16, floating, 16, "float16"},
    Row{DType::f32, floating, 32, "float32"},     Row{DType::f8e4m3, e4m3fn, 8, "float8_e4m3fn"},
    Row{DType::i32, integer, 32, "int32"},        Row{DType::i64, integer, 64, "int64"},
    Row{DType::u8, unsigned_integer, 8, "uint8"}, Row{DType::u8, boolean, 8, "bool"},
};

Row const& row_of(DType dtype) noexcept {
  for (Row const& row : table)
    if (row.dtype == dtype) return row;
  return table.back();
}

enum DeviceType : std::int32_t { host = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };

}  // namespace

std::optional<DType> dtype_of(dlpack::DataType type) noexcept {
  for (Row const& row : table)
    if (row.code == type.code && row.bits == type.bits && type.lanes == 1) return row.dtype;
  return std::nullopt;
}

std::optional<DType> dtype_of_name(std::string_view numpy_name) noexcept {
  for (Row const& row : table)
    if (numpy_name == row.name) return row.dtype;
  return std::nullopt;
}

bool is_floating(dlpack::DataType type) noexcept {
  return (type.code == floating || type.code == brain || type.code == e4m3fn) && dtype_of(type).has_value();
}

bool is_integer(dlpack::DataType type) noexcept {
  return type.code == integer || type.code == unsigned_integer;
}

dlpack::DataType to_dlpack(DType dtype) noexcept {
  Row const& row = row_of(dtype);
  return {.code = row.code, .bits = row.bits, .lanes = 1};
}

char const* numpy_name_of(DType dtype) noexcept {
  return row_of(dtype).name;
}

std::optional<Device> device_of(std::int32_t dlpack_type) noexcept {
  if (dlpack_type == host || dlpack_type == cuda_host) return Device::cpu;
  if (dlpack_type == cuda || dlpack_type == cuda_managed) return Device::cuda;
  return std::nullopt;
}

std::int32_t to_dlpack(Device device) noexcept {
  return device == Device::cpu ? host : cuda;
}

}  // namespace switchyard::python
