"""Results as tensors of the framework that the inputs came from, without importing any that is not in use."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

from ._core import HeapTensor
from ._core import current_cuda_stream as current_stream
from ._errors import InvalidArgument, Unsupported

_cpu = 1  # DLPack's number of it


_known = ("torch", "numpy", "jax", "jaxlib", "cupy")


@lru_cache(maxsize=256)
def framework_of(kind: type) -> str:
    """The top-level module of the class that tensors of this class are of: one of _known, or another."""
    modules = [each.__module__.partition(".")[0] for each in kind.__mro__]
    return next((module for module in modules if module in _known), modules[0])


def require_torch(torch: Any) -> None:
    """For what needs results to be tensors of PyTorch at once: DLPack's C exchange table makes them so."""
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
    """`tensor` as one of that class's framework; what is not of the heap (None, or one already) is returned as it is.

    Of a class rather than of a tensor, which results would keep alive.
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
    # NumPy is on the CPU; elsewhere the caller knows what takes a DLPack tensor.
    return _to_numpy(tensor) if tensor.__dlpack_device__()[0] == _cpu else tensor


def _to_jax(tensor: HeapTensor) -> Any:
    """JAX would cut int64 down to int32 unless it is told not to: then NumPy has them.

    On a GPU a copy: JAX lets go of an array when what reads it is queued, on a stream that no call can wait for.
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
    """The name of a dtype of PyTorch or NumPy, and what results are to be like when the caller does not say."""
    name = str(dtype)
    if like is None and name.startswith("torch."):
        import torch

        like = torch.empty(0)
    if isinstance(dtype, str) or name.startswith("torch."):
        return name.removeprefix("torch."), like
    import numpy

    return numpy.dtype(dtype).name, like


class _Fresh:
    """A new JAX array that nobody has seen yet, so that it may still be written to."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: object) -> object:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def empty(shape: tuple[int, ...], like: Any) -> tuple[Any, Any]:
    """A new tensor of the framework, dtype and device of `like`; and that as something to be written to."""
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
    raise InvalidArgument(f"out: expected a tensor, since {framework} has none that may be written to, seen None")


def current_cuda_stream(tensor: Any) -> int:
    """The stream that PyTorch or CuPy works on where the tensor lies; 0 for tensors on the CPU."""
    stream = current_stream(tensor)  # PyTorch's own way takes microseconds
    if stream is not None:
        return stream
    kind: type = type(tensor)
    if framework_of(kind) == "cupy":
        return int(sys.modules["cupy"].cuda.get_current_stream(tensor.device.id).ptr)
    return 0
