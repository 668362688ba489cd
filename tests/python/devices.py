"""Where the tensors of a test lie: on the CPU ("cpu"), of all ranks on one GPU ("cuda"), or on a GPU of each rank's
own, in a process group of NCCL ("nccl"). References stay on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from reference import Inputs

_in_use = [torch.device("cpu")]


def use(name: str, rank: int) -> None:
    """Of this process."""
    if name == "cpu":
        _in_use[0] = torch.device(name)
        return
    _in_use[0] = torch.device("cuda", rank if name == "nccl" else 0)
    torch.cuda.set_device(_in_use[0])


def backend(name: str) -> str:
    """Of the process group."""
    return "nccl" if name == "nccl" else "gloo"


def engine(name: str) -> str:
    return "cpu" if name == "cpu" else "cuda"


def device() -> torch.device:
    return _in_use[0]


def on_gpu() -> bool:
    return device().type == "cuda"


def here(value: Any) -> Any:
    """A tensor, or a rank's inputs."""
    if isinstance(value, Inputs):
        return Inputs(here(value.x), here(value.topk_idx), here(value.topk_weights))
    return value.to(device())


def same(seen: torch.Tensor, expected: torch.Tensor) -> None:
    """Bit by bit; `seen` is where it belongs."""
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
    """Keeps the current stream of a GPU at work, so that what does not wait for it is found out."""
    if on_gpu():
        torch.cuda._sleep(int(seconds * 1.8e9))


def another_stream() -> AbstractContextManager[Any]:
    """To work on; CPU: there is none."""
    return torch.cuda.stream(torch.cuda.Stream()) if on_gpu() else nullcontext()


def why_not(name: str) -> str:
    """Why a device cannot be tested; empty if it can."""
    import switchyard._core

    if name == "cpu":
        return ""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if name == "nccl" and torch.cuda.device_count() < 2:
        return "torch sees one GPU only: ranks of NCCL need one each"
    return "" if switchyard._core.has_cuda else "switchyard was built without its CUDA engine"
