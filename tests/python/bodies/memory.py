"""Results that are held, and results that other streams still read when they are released. On either device."""

from __future__ import annotations

from typing import Any, Callable

import deep_ep
import reference
import switchyard
import torch
from bodies.deep_ep import Job
from bodies.problem import Problem
from devices import busy, device, on_gpu, same

hidden, experts, top_k = 1024, 8, 4


class LargeJob(Job):
    """A rank whose results take more than the heap has at first, on a GPU."""

    def __init__(self, group: Any, seed: int = 0) -> None:
        sizes = {"hidden": hidden, "experts": experts, "top_k": top_k, "dtype": torch.bfloat16}
        tokens = [(300, 1, 257, 40)[r % 4] for r in range(group.size())]
        inputs = [reference.make_inputs(r + 100 * seed, tokens=n, **sizes) for r, n in enumerate(tokens)]
        Problem.__init__(self, group, inputs, experts)
        self.buffer = deep_ep.Buffer(group, num_nvl_bytes=1 << 20, explicitly_destroy=True)


def held_results(group: Any) -> None:
    """Results of many layers stay as they are, and each combines: the heap grows, and is given back."""
    job = LargeJob(group)
    held = [job.dispatch() for _ in range(12)]
    for x, ids, weights, counts, handle, _ in held:
        same(x, job.received().x)
        same(ids, job.received().topk_idx)
        assert counts == job.received().tokens_per_expert
        back, _, _ = job.buffer.combine(x.clone(), handle, topk_weights=weights)
        same(back, job.sums())
    del x, ids, weights, handle, held
    job.dispatch()
    job.buffer.destroy()


def handles_keep_no_rows(group: Any) -> None:
    """A handle is kept until backward, with activation recomputation much longer than the rows."""
    job = LargeJob(group)
    handles = [job.dispatch()[4] for _ in range(12)]
    used = next(iter(job.buffer._engines._buffers.values())).heap_bytes_used
    rows = job.received().x.numel() * 2
    assert used < 3 * rows + (12 * 3 << 14), (used, rows)
    for handle in handles:
        same(job.buffer.dispatch(job.mine.x, handle=handle)[0], job.received().x)
    job.buffer.destroy()


def grows_and_shrinks(group: Any) -> None:
    """What a buffer says of its heap, and what trim() gives back."""
    with switchyard.Communicator.from_torch(group) as communicator:
        options = {"initial_heap_bytes": 1 << 20, "device": device().index} if on_gpu() else {}
        sizes = {"max_tokens": 512, "hidden": hidden, "num_experts": experts, "top_k": top_k}
        engine = "cuda" if on_gpu() else "cpu"
        with switchyard.Buffer(communicator, engine=engine, **sizes, **options) as buffer:
            at_first = buffer.heap_bytes_now
            held = [buffer.allocate(torch.uint8, (4 << 20,), like=torch.empty(0, device=device())) for _ in range(12)]
            for number, each in enumerate(held):
                each.fill_(number)
            assert buffer.heap_bytes_used >= 48 << 20
            assert not on_gpu() or buffer.heap_bytes_now > at_first
            before = buffer.heap_bytes_now
            assert buffer.trim() == 0, "all is in use"
            assert all(bool((each == number).all()) for number, each in enumerate(held))
            del each, held
            given_back = buffer.trim()
            assert buffer.heap_bytes_now == before - given_back
            assert given_back > 0 or not on_gpu()
            again = buffer.allocate(torch.uint8, (40 << 20,), like=torch.empty(0, device=device()))
            again.fill_(1)
            communicator.barrier()


def _released_by_record_stream(result: list[torch.Tensor], stream: Any) -> torch.Tensor:
    with torch.cuda.stream(stream):
        busy()
        copy = result[0].clone()
    result[0].record_stream(stream)
    result.clear()
    return copy


def _released_on_the_stream(result: list[torch.Tensor], stream: Any) -> torch.Tensor:
    with torch.cuda.stream(stream):
        busy()
        copy = result[0].clone()
        result.clear()
    return copy


def read_on_another_stream(group: Any) -> None:
    """Whether record_stream() was called or it was released where it was read, nobody writes there before."""
    job = LargeJob(group)
    other = torch.cuda.Stream()
    ways: tuple[Callable[..., torch.Tensor], ...] = (_released_by_record_stream, _released_on_the_stream)
    for way in (*ways, *ways):
        result = [job.dispatch()[0]]  # its handle goes, too: the next result fits where this one was
        other.wait_stream(torch.cuda.current_stream())
        copy = way(result, other)
        for _ in range(3):
            job.dispatch(torch.full_like(job.mine.x, 7.0))
        other.synchronize()
        same(copy, job.received().x)
    torch.cuda.synchronize()
    job.buffer.destroy()


def two_streams(group: Any) -> None:
    """Calls of two micro-batches on a stream each, whose results each reads late."""
    job = LargeJob(group)
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    copies = []
    for step in range(8):
        with torch.cuda.stream(streams[step % 2]):
            x = job.dispatch(job.mine.x if step % 3 else torch.full_like(job.mine.x, 5.0))[0]
            busy()
            copies.append((step % 3, x.clone()))
            del x
    torch.cuda.synchronize()
    for plain, copy in copies:
        if plain:
            same(copy, job.received().x)
        else:
            assert bool((copy == 5.0).all())
    job.buffer.destroy()


def given_back_to_pytorch(group: Any) -> None:
    """When an allocation of PyTorch's fails, what the heap does not use goes back to the GPU."""
    with switchyard.Communicator.from_torch(group) as communicator:
        sizes = {"max_tokens": 512, "hidden": hidden, "num_experts": experts, "top_k": top_k}
        with switchyard.Buffer(
            communicator, engine="cuda", initial_heap_bytes=1 << 20, device=device().index, **sizes
        ) as buffer:
            at_first = buffer.heap_bytes_now
            held = buffer.allocate(torch.uint8, (64 << 20,), like=torch.empty(0, device=device()))
            assert buffer.heap_bytes_now > at_first
            del held
            torch.cuda.set_per_process_memory_fraction(0.001)
            try:
                torch.empty(1 << 30, dtype=torch.uint8, device=device())
                raise AssertionError("PyTorch had the memory")
            except torch.cuda.OutOfMemoryError:
                pass
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            assert buffer.heap_bytes_now < 64 << 20
            communicator.barrier()
