"""Arrays of CuPy and JAX in and out, on the streams of these frameworks. Each function checks itself."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import SkipTest

import numpy as np
import torch
from bodies import buffer as throughput
from bodies.low_latency_buffer import buffer_of
from devices import busy, device, on_gpu
from low_latency_reference import Job, check_received, outputs_of, sums


def cupy_arrays(group: Any) -> None:
    _need_one_gpu(group)
    library = _CuPy()
    with library.cupy.cuda.Stream(non_blocking=True):
        _throughput(group, library, library.half)
        _decoding(group, library)


def jax_arrays(group: Any) -> None:
    if group.size() > 4:
        raise SkipTest("JAX takes seconds to start, of all cores; 4 ranks show as much")
    _need_one_gpu(group)
    library = _Jax()
    for dtype in (torch.bfloat16,) if on_gpu() else (torch.bfloat16, torch.float16, torch.float32):
        _throughput(group, library, dtype)
    _decoding(group, library)


def _need_one_gpu(group: Any) -> None:
    if torch.distributed.get_backend(group) == "nccl":
        raise SkipTest("these arrays are made on the first GPU")


class _CuPy:
    half = torch.float16  # older versions have no bfloat16
    writable = True

    def __init__(self) -> None:
        if not on_gpu():
            raise SkipTest("CuPy has no arrays on the CPU")
        try:
            import cupy

            assert int((cupy.arange(3) + 1).sum()) == 6  # with kernels that it compiles here
        except Exception as error:
            raise SkipTest(f"CuPy does not work here: {type(error).__name__}: {error}") from None
        self.cupy = cupy

    def of(self, tensor: torch.Tensor) -> Any:
        return self.cupy.asarray(tensor.numpy())

    def late(self, tensor: torch.Tensor) -> Any:
        """Returns an array that is written only after a while, on the current stream."""
        source = self.of(tensor)
        made = self.cupy.zeros_like(source)
        return self._after_a_while(lambda: self.cupy.copyto(made, source), made)

    def read_late(self, array: Any) -> Any:
        made = self.cupy.zeros_like(array)
        return self._after_a_while(lambda: self.cupy.copyto(made, array), made)

    def _after_a_while(self, copy: Any, made: Any) -> Any:
        stream = self.cupy.cuda.get_current_stream()
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.ptr)):
            busy()
        copy()
        return made

    def torch(self, array: Any) -> torch.Tensor:
        assert isinstance(array, self.cupy.ndarray) and array.device.id == 0, (type(array), array.device)
        return torch.from_numpy(array.get())

    def with_int64(self) -> AbstractContextManager[Any]:
        return nullcontext()


class _Jax:
    half = torch.bfloat16
    writable = False

    def __init__(self) -> None:
        # Before it is imported: several ranks share the GPU.
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        if not on_gpu():
            os.environ["JAX_PLATFORMS"] = "cpu"
        try:
            import jax

            self.device = jax.devices("cuda" if on_gpu() else "cpu")[0]
        except (ImportError, RuntimeError) as error:
            raise SkipTest(f"JAX does not work here: {error}") from None
        self.jax = jax
        if on_gpu():
            torch.cuda.set_device(device())  # JAX may have made another GPU current

        def slow(x: Any) -> Any:
            def turn(_: Any, v: Any) -> Any:
                return jax.numpy.sin(v) + 1

            values = jax.numpy.full(1 << (22 if on_gpu() else 14), 0.5, jax.numpy.float32)
            spent = jax.lax.fori_loop(0, 500, turn, values).sum()  # positive
            return jax.numpy.where(spent > 0, x, 0)

        self._slow = jax.jit(slow)

    def of(self, tensor: torch.Tensor) -> Any:
        if tensor.dtype == torch.bfloat16:
            import ml_dtypes

            return self.jax.device_put(tensor.float().numpy().astype(ml_dtypes.bfloat16), self.device)
        return self.jax.device_put(tensor.numpy(), self.device)

    def late(self, tensor: torch.Tensor) -> Any:
        """Returns an array that JAX is still computing."""
        return self._slow(self.of(tensor))

    def read_late(self, array: Any) -> Any:
        return self._slow(array)

    def torch(self, array: Any) -> torch.Tensor:
        assert isinstance(array, self.jax.Array) and array.devices() == {self.device}, (type(array), array)
        plain = np.array(array)
        if str(plain.dtype) == "bfloat16":
            return torch.from_numpy(plain.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(plain)

    def with_int64(self) -> AbstractContextManager[Any]:
        return self.jax.enable_x64(True)


def _same(library: Any, seen: Any, expected: torch.Tensor) -> None:
    seen = library.torch(seen)
    assert seen.dtype == expected.dtype and seen.shape == expected.shape, (seen.dtype, seen.shape, expected.shape)
    assert torch.equal(seen, expected), f"{int((seen != expected).sum())} of {seen.numel()} differ"


def _throughput(group: Any, library: Any, dtype: torch.dtype) -> None:
    job = throughput.Job(group, dtype)
    mine, expected = job.own, job.received()
    for asynchronous in (False, True):
        x, ids, weights = library.late(mine.x), library.of(mine.topk_idx.int()), library.of(mine.topk_weights)
        if asynchronous:
            result = job.buffer.dispatch_async(x, ids, weights).get()
        else:
            result = job.buffer.dispatch(x, ids, weights)
        if library.writable:
            x.fill(0)  # comes after the call
        del x
        library.of(mine.x + 3)  # may take its memory
        _same(library, result.x, expected.x)
        _same(library, result.topk_idx, expected.topk_idx.int())
        _same(library, result.topk_weights, expected.topk_weights)
        _same(library, result.source_token, expected.source_token)
        rows = library.late(expected.x) if asynchronous else result.x
        out = library.of(torch.zeros_like(mine.x)) if library.writable and asynchronous else None
        back = job.buffer.combine(rows, result.handle, topk_weights=result.topk_weights, out=out)
        assert out is None or back.x is out
        _same(library, library.read_late(back.x), job.sums())
        _same(library, back.topk_weights, job.weights_back())
    _same(library, job.buffer.get_layout(ids).is_token_in_rank, job.table())
    # The next result takes the memory of this one; what reads this one has been queued, and is under way.
    kept = library.read_late(result.x)
    del result, back, rows, out
    other = job.buffer.dispatch(library.of(mine.x + 1), ids)
    _same(library, kept, expected.x)
    assert other.topk_weights is None
    job.buffer.destroy()


def _decoding(group: Any, library: Any) -> None:
    job, rank = Job(group.size(), dtype=library.half), group.rank()
    with library.with_int64(), buffer_of(group, job) as buffer:
        for step in range(4):
            mine = job.inputs(rank, step)
            x, ids = library.late(mine.x), library.of(mine.topk_idx)
            weights = library.of(mine.topk_weights)
            if step % 2 == 0:
                received, hook = buffer.send_dispatch(x, ids)
                hook()
            else:
                received = buffer.dispatch(x, ids)
            if library.writable:
                x.fill(0)
            parts = [library.torch(getattr(received, name)) for name in ("x", "counts", "source_token", "ranges")]
            check_received(job, rank, (parts[0], None, *parts[1:]), step=step)
            made = outputs_of(parts[0], rank, job)
            if library.writable and step == 2:
                outputs = buffer.outputs(received.handle, "float16", like=x)
                outputs[...] = library.of(made)
            else:
                outputs = library.late(made)
            if step % 2 == 0:
                back, hook = buffer.send_combine(outputs, received.handle, topk_weights=weights)
                hook()
            else:
                back = buffer.combine(outputs, received.handle, topk_weights=weights)
            _same(library, library.read_late(back), sums(job, rank, step=step))
            del received, outputs, back  # the slots
        buffer.synchronize()
