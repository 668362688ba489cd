#include "tensors/inputs.hpp"

#include <string>
#include <string_view>

#include "switchyard/error.hpp"
#include "tensors/dtypes.hpp"
#include "tensors/exchange.hpp"
#include "text.hpp"

namespace switchyard::python {

namespace {

std::string describe(dlpack::DataType type) {
  char const* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  std::string const kind =
      type.code < std::size(kinds) ? kinds[type.code] : "type code " + std::to_string(type.code);
  return kind + std::to_string(type.bits);
}

DType require_dtype(char const* name, std::optional<DType> dtype, std::string const& seen) {
  if (dtype) return *dtype;
  throw InvalidArgument(std::string(name) +
                        ": expected dtype bfloat16, float16, float32, float8_e4m3fn, int32, int64, uint8 or bool, "
                        "seen " +
                        seen);
}

void require_dims(char const* name, std::int64_t ndim) {
  if (ndim >= 0 && ndim <= max_dims) return;
  throw InvalidArgument(std::string(name) + ": expected at most " + std::to_string(max_dims) +
                        " dimensions, seen " + std::to_string(ndim));
}

// The library takes a view without dimensions for a tensor that is not given.
void require_some_dims(char const* name, std::int64_t ndim) {
  if (ndim == 0)
    throw InvalidArgument(std::string(name) + ": expected a tensor of 1 to 3 dimensions, seen a scalar");
}

// Frameworks give tensors without elements arbitrary strides, which checks of strides must not see.
TensorView with_sane_strides(TensorView view) {
  if (view.numel() != 0) return view;
  std::int64_t stride = 1;
  for (auto d = static_cast<std::size_t>(view.ndim); d-- > 0; stride *= view.shape[d]) view.strides[d] = stride;
  return view;
}

TensorView view_of(char const* name, dlpack::Tensor const& tensor) {
  TensorView view;
  require_dims(name, tensor.ndim);
  require_some_dims(name, tensor.ndim);
  view.dtype = require_dtype(name, dtype_of(tensor.dtype), describe(tensor.dtype));
  auto const device = device_of(tensor.device.type);
  if (!device)
    throw InvalidArgument(std::string(name) +
                          ": expected a tensor on the CPU or a CUDA GPU, seen DLPack device type " +
                          std::to_string(tensor.device.type));
  view.device = *device;
  view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  view.ndim = tensor.ndim;
  std::int64_t stride = 1;
  for (auto d = static_cast<std::size_t>(tensor.ndim); d-- > 0;) {
    view.shape[d] = tensor.shape[d];
    view.strides[d] = tensor.strides != nullptr ? tensor.strides[d] : stride;
    stride *= tensor.shape[d];
  }
  return with_sane_strides(view);
}

// NumPy's DLPack does not know ml_dtypes and, in older versions, refuses read-only arrays.
TensorView numpy_view(char const* name, nb::handle array, bool written) {
  auto const interface = nb::cast<nb::dict>(array.attr("__array_interface__"));
  auto const data = nb::cast<nb::tuple>(interface["data"]);
  if (written && nb::cast<bool>(data[1]))
    throw InvalidArgument(std::string(name) + ": expected an array that may be written to, seen a read-only one");
  if (!nb::cast<bool>(array.attr("dtype").attr("isnative")))
    throw InvalidArgument(std::string(name) +
                          ": expected elements in this machine's byte order, seen swapped ones");
  std::string const dtype = text_of(array.attr("dtype").attr("name"));
  auto const shape = nb::cast<nb::tuple>(array.attr("shape"));
  auto const strides = nb::cast<nb::tuple>(array.attr("strides"));
  TensorView view;
  require_dims(name, static_cast<std::int64_t>(shape.size()));
  require_some_dims(name, static_cast<std::int64_t>(shape.size()));
  view.dtype = require_dtype(name, dtype_of_name(dtype), dtype);
  view.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(data[0]));
  view.ndim = static_cast<int>(shape.size());
  auto const size = static_cast<std::int64_t>(size_of(view.dtype));
  for (std::size_t d = 0; d < shape.size(); ++d) {
    auto const bytes = nb::cast<std::int64_t>(strides[d]);
    if (bytes % size != 0)
      throw InvalidArgument(std::string(name) + ": expected strides of whole elements, seen " +
                            std::to_string(bytes) + " bytes");
    view.shape[d] = nb::cast<std::int64_t>(shape[d]);
    view.strides[d] = bytes / size;
  }
  return with_sane_strides(view);
}

// Looks at base classes, too, since users derive classes of their own.
bool is_of(nb::handle object, std::string_view framework) {
  for (nb::handle const type : nb::cast<nb::tuple>(object.type().attr("__mro__")))
    if (text_of(type.attr("__module__")).starts_with(framework)) return true;
  return false;
}

// A call starts after the stream that it is given, so CuPy needs no wait (-1). Otherwise CuPy would make the
// default stream wait for its current one, which graphs cannot capture.
nb::object call_dlpack(nb::handle object, bool versioned) {
  nb::dict options;
  if (is_of(object, "cupy")) options["stream"] = -1;
  if (versioned) options["max_version"] = nb::make_tuple(dlpack::major_version, 0);
  return object.attr("__dlpack__")(**options);
}

// Only versioned tensors say whether they are read-only.
nb::object exported(nb::handle object) {
  try {
    return call_dlpack(object, true);
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return call_dlpack(object, false);
}

struct Export {
  dlpack::Tensor tensor;
  bool read_only = false;
};

// Reads a capsule. It still owns the memory: a consumer that takes that over renames the capsule.
Export tensor_in(nb::handle capsule) {
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto const* const managed =
        static_cast<dlpack::ManagedTensor const*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != dlpack::major_version)
      throw nb::buffer_error(("DLPack version " + std::to_string(managed->version.major)).c_str());
    return {managed->tensor, (managed->flags & dlpack::read_only) != 0};
  }
  void* const unversioned = PyCapsule_GetPointer(capsule.ptr(), "dltensor");
  if (unversioned == nullptr) throw nb::python_error();
  return {*static_cast<dlpack::Tensor const*>(unversioned), false};  // the tensor is the first member
}

[[noreturn]] void refuse(char const* name, std::string const& reason) {
  throw InvalidArgument(std::string(name) +
                        ": expected a dense tensor on a CPU or a CUDA GPU, seen one that DLPack cannot describe (" +
                        reason + ")");
}

// Refuses for the reason that the tensor's library gave. Only its first line: PyTorch appends a C++ stack trace.
[[noreturn]] void refuse(char const* name, nb::python_error& error) {
  if (!error.matches(PyExc_Exception)) throw error;  // KeyboardInterrupt
  std::string const text = text_of(error.value());
  refuse(name, text.substr(0, text.find('\n')));
}

Export export_of(char const* name, nb::handle object, Exports& exports) {
  try {
    exports.push_back(exported(object));
    return tensor_in(exports.back());
  } catch (nb::python_error& error) {
    refuse(name, error);
  } catch (nb::builtin_exception const& error) {
    refuse(name, error.what());
  }
}

// The object keeps owning the memory.
TensorView borrowed_view(char const* name, nb::handle object, dlpack::ExchangeApi const& api) {
  dlpack::Tensor tensor{};
  if (api.borrow_from_object(object.ptr(), &tensor) == 0) return view_of(name, tensor);
  nb::python_error error;  // takes the raised exception
  refuse(name, error);
}

TensorView dlpack_view(char const* name, nb::handle object, bool written, Exports& exports) {
  bool const of_jax = is_of_jax(object);
  // JAX does not say through DLPack that its arrays are read-only.
  if (written && of_jax)
    throw InvalidArgument(std::string(name) +
                          ": expected a tensor that may be written to, seen a JAX array, which is immutable");
  auto const [tensor, read_only] = export_of(name, object, exports);
  if (written && read_only)
    throw InvalidArgument(std::string(name) + ": expected a tensor that may be written to, seen a read-only one");
  // JAX returns arrays that it is still computing, and has no stream to wait for.
  if (of_jax) object.attr("block_until_ready")();
  return view_of(name, tensor);
}

TensorView view_of_object(char const* name, nb::handle object, bool written, Exports& exports) {
  if (object.is_none()) return {};
  if (auto const* const api = exchange_api_of(object)) return borrowed_view(name, object, *api);
  if (nb::hasattr(object, "__array_interface__")) return numpy_view(name, object, written);
  if (nb::hasattr(object, "__dlpack__")) return dlpack_view(name, object, written, exports);
  throw wrong_type(name, "a tensor (of NumPy, PyTorch, JAX, CuPy, or anything with __dlpack__)", object);
}

}  // namespace

bool is_of_jax(nb::handle object) {
  return is_of(object, "jax");
}

ConstTensorView input(char const* name, nb::handle object, Exports& exports) {
  return view_of_object(name, object, false, exports);
}

TensorView output(char const* name, nb::handle object, Exports& exports) {
  return view_of_object(name, object, true, exports);
}

nb::builtin_exception wrong_type(char const* name, char const* expected, nb::handle object) {
  std::string const text =
      std::string(name) + ": expected " + expected + ", seen " + text_of(nb::type_name(object.type()));
  return nb::type_error(text.c_str());
}

}  // namespace switchyard::python
