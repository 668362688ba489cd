"""The device in use: the CPU ("cpu"), one GPU for all ranks ("cuda"), or a GPU for each rank of a group of NCCL
("nccl"). References stay on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from reference import Inputs

_in_use = [torch.device("cpu")]


def use(name: str, rank: int) -> None:
    """Chooses the device of this process."""
    if name == "cpu":
        _in_use[0] = torch.device(name)
        return
    _in_use[0] = torch.device("cuda", rank if name == "nccl" else 0)
    torch.cuda.set_device(_in_use[0])


def backend(name: str) -> str:
    """Returns the back end of the process group."""
    return "nccl" if name == "nccl" else "gloo"


def engine(name: str) -> str:
    return "cpu" if name == "cpu" else "cuda"


def device() -> torch.device:
    return _in_use[0]


def on_gpu() -> bool:
    return device().type == "cuda"


def here(value: Any) -> Any:
    """Returns a tensor, or a rank's inputs, on the device in use."""
    if isinstance(value, Inputs):
        return Inputs(here(value.x), here(value.topk_idx), here(value.topk_weights))
    return value.to(device())


def same(seen: torch.Tensor, expected: torch.Tensor) -> None:
    """Checks that tensors are equal bit by bit, and that `seen` lies on the device in use."""
    assert seen.device == device(), f"expected a tensor on {device()}, seen one on {seen.device}"
    seen, expected = seen.cpu(), expected.cpu()
    assert seen.dtype == expected.dtype and seen.shape == expected.shape, (seen.shape, expected.shape)
    if not torch.equal(seen.float(), expected.float()):
        wrong = (seen.float() != expected.float()).nonzero()
        first = tuple(wrong[0].tolist())
        raise AssertionError(f"{len(wrong)} of {seen.numel()} differ, first {first}: {seen[first]}, {expected[first]}")


def close(seen: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-2) -> None:
    torch.testing.assert_close(seen.detach().cpu().float(), expected.cpu().float(), rtol=tolerance, atol=tolerance)


def busy(seconds: float = 0.02) -> None:
    """Keeps the current stream of a GPU busy, so that a call that does not wait for it fails its test."""
    if on_gpu():
        torch.cuda._sleep(int(seconds * 1.8e9))


def another_stream() -> AbstractContextManager[Any]:
    """Returns a context with another current stream; on the CPU one without effect."""
    return torch.cuda.stream(torch.cuda.Stream()) if on_gpu() else nullcontext()


def why_not(name: str) -> str:
    """Returns why a device cannot be tested; empty if it can."""
    import switchyard._core

    if name == "cpu":
        return ""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if name == "nccl" and torch.cuda.device_count() < 2:
        return "torch sees one GPU only: ranks of NCCL need one each"
    return "" if switchyard._core.has_cuda else "switchyard was built without its CUDA engine"
