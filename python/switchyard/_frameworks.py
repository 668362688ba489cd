"""Results as tensors of the framework of the inputs. Frameworks that are not in use are not imported."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from ._core import HeapTensor
from ._core import current_cuda_stream as current_stream
from ._errors import InvalidArgument, Unsupported

_cpu = 1  # the number of the CPU in DLPack
_known = ("torch", "numpy", "jax", "jaxlib", "cupy")


@lru_cache(maxsize=256)
def framework_of(kind: type) -> str:
    """Returns the top-level module of a class of tensors, or of its base class in a known framework."""
    modules = [each.__module__.partition(".")[0] for each in kind.__mro__]
    return next((module for module in modules if module in _known), modules[0])


def require_torch(torch: Any) -> None:
    """Raises ImportError if PyTorch has no C exchange table of DLPack, which makes results tensors of PyTorch."""
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        raise ImportError(f"expected PyTorch 2.10 or newer, seen {torch.__version__}: pip install 'torch>=2.10'")


def _to_numpy(tensor: HeapTensor) -> Any:
    import ml_dtypes
    import numpy as np

    data: Any = tensor.to_bytes()
    named = getattr(ml_dtypes, tensor.dtype, None)
    flat = data.view(named or tensor.dtype)
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, tensor.strides)


def native(tensor: Any, kind: type) -> Any:
    """Returns a HeapTensor as a tensor of the framework of `kind`, and anything else (None, a tensor) as it is.

    Results hold a class rather than a tensor of the framework, since they would keep the tensor alive.
    """
    if not isinstance(tensor, HeapTensor):
        return tensor
    framework = framework_of(kind)
    if framework == "torch":
        return sys.modules["torch"].from_dlpack(tensor)
    if framework == "cupy":
        return sys.modules["cupy"].from_dlpack(tensor)
    if framework in ("jax", "jaxlib"):
        return _to_jax(tensor)
    # NumPy has no tensors on GPUs: there the caller gets an object with __dlpack__.
    return _to_numpy(tensor) if tensor.__dlpack_device__()[0] == _cpu else tensor


def _to_jax(tensor: HeapTensor) -> Any:
    """Returns an array of JAX, or of NumPy for int64 while JAX would cut it down to int32.

    On a GPU the array is a copy: JAX frees an array once the work that reads it is queued, and no call can wait for the
    stream of that work.
    """
    import jax

    on_cpu = tensor.__dlpack_device__()[0] == _cpu
    if tensor.dtype == "int64" and not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        if not on_cpu:
            raise Unsupported("int64 results: expected jax_enable_x64, seen that it is off")
        return _to_numpy(tensor)
    shared = jax.dlpack.from_dlpack(tensor)
    return shared if on_cpu else jax.block_until_ready(jax.numpy.array(shared, copy=True))


def named_dtype(dtype: Any, like: object) -> tuple[str, object]:
    """Returns the name of a dtype of PyTorch or NumPy, and `like`, or a tensor of the framework of the dtype."""
    name = str(dtype)
    if like is None and name.startswith("torch."):
        import torch

        like = torch.empty(0, device="cpu")
    if isinstance(dtype, str) or name.startswith("torch."):
        return name.removeprefix("torch."), like
    import numpy

    return numpy.dtype(dtype).name, like


class _Fresh:
    """A new JAX array. Nobody has seen it yet, so it may still be written to."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: object) -> object:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def empty(shape: tuple[int, ...], like: Any) -> tuple[Any, Any]:
    """Returns a new tensor with the framework, dtype and device of `like`, and an object that calls may write to."""
    kind: type = type(like)
    framework = framework_of(kind)
    if framework == "torch":
        made = like.new_empty(shape)
        return made, made
    if framework in ("numpy", "cupy"):
        with like.device if framework == "cupy" else nullcontext():
            made = sys.modules[framework].empty(shape, like.dtype)
        return made, made
    if framework in ("jax", "jaxlib"):
        import jax.numpy

        made = jax.block_until_ready(jax.numpy.zeros(shape, like.dtype, device=like.sharding))
        return made, _Fresh(made)
    raise InvalidArgument(f"out: expected a tensor, since Switchyard can make none of {framework}, seen None")


def current_cuda_stream(tensor: Any) -> int:
    """Returns the current stream of PyTorch or CuPy on the tensor's GPU, as an integer; 0 for tensors on the CPU."""
    stream = current_stream(tensor)  # torch.cuda.current_stream takes microseconds
    if stream is not None:
        return stream
    kind: type = type(tensor)
    if framework_of(kind) == "cupy":
        return int(sys.modules["cupy"].cuda.get_current_stream(tensor.device.id).ptr)
    return 0
