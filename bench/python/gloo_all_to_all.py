"""The job of `switchyard bench` by torch.distributed.all_to_all_single over gloo, as a user of PyTorch would write it.

Times dispatch and combine of ranks that are processes of this machine, checks both, and prints one JSON object.
tools/compare.py runs it. A token goes once to every rank that holds one of its experts, together with its ids and
weights; rows travel packed by destination, and come back to where they were packed, as in bench/mpi_alltoall.

    python bench/python/gloo_all_to_all.py --ranks 8 --tokens 128

With --local-ranks it runs a part of the ranks, as each of several nodes does, and GLOO_SOCKET_IFNAME says by which
interface they reach one another:

    python bench/python/gloo_all_to_all.py --ranks 8 --local-ranks 4 --first-rank 4 --meeting tcp://10.0.0.1:29500
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, fallback in [("ranks", 8), ("tokens", 4096), ("hidden", 7168), ("top-k", 8), ("experts", 256)]:
        parser.add_argument(f"--{name}", type=int, default=fallback)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--local-ranks", type=int, help="those that this node runs; all, if not given")
    parser.add_argument("--first-rank", type=int, default=0, help="the first of them")
    parser.add_argument("--meeting", help="where ranks meet: tcp://HOST:PORT of the node of rank 0")
    options = parser.parse_args()
    if options.local_ranks and not options.meeting:
        parser.error("--local-ranks: expected --meeting, seen none")
    return options


class Inputs:
    """What one rank sends; any rank can make any other's, to check what it received."""

    def __init__(self, options: argparse.Namespace, rank: int) -> None:
        random = torch.Generator().manual_seed(options.seed * 1000003 + rank)
        scores = torch.rand(options.tokens, options.experts, generator=random)
        self.ids = scores.argsort(1)[:, : options.top_k].contiguous()
        self.weights = torch.rand(options.tokens, options.top_k, generator=random)
        self.x = torch.randn(options.tokens, options.hidden, generator=random).bfloat16()


class Warm:
    """Memory that grows but never shrinks: warm after the first iteration."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def rows(self, count: int, width: int) -> torch.Tensor:
        if count * width > self._memory.numel():
            self._memory = torch.empty(count * width, dtype=torch.uint8)
        return self._memory[: count * width].view(count, width)


class Exchange:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        ranks, experts = options.ranks, options.experts
        sizes = [experts // ranks + (rank < experts % ranks) for rank in range(ranks)]
        self.owner = torch.repeat_interleave(torch.arange(ranks), torch.tensor(sizes))
        self.first = sum(sizes[: dist.get_rank()])
        self.end = self.first + sizes[dist.get_rank()]
        self.packed, self.rows, self.sides = Warm(), Warm(), Warm()

    def dispatch(self, inputs: Inputs) -> None:
        o = self.options
        self.owners = self.owner[inputs.ids]
        goes = torch.zeros(o.tokens, o.ranks, dtype=torch.bool).scatter_(1, self.owners, True)
        self.to_rank, self.token = goes.t().nonzero(as_tuple=True)  # by destination, then by token
        sends = goes.sum(0)
        receives = torch.empty_like(sends)
        dist.all_to_all_single(receives, sends)
        self.sends, self.receives = sends.tolist(), receives.tolist()
        count = sum(self.receives)

        parts = (inputs.ids[self.token], inputs.weights[self.token], self.token.int().unsqueeze(1))
        sides = torch.cat([part.contiguous().view(torch.uint8) for part in parts], 1)
        packed = self.packed.rows(len(self.token), 2 * o.hidden)
        torch.index_select(inputs.x.view(torch.uint8), 0, self.token, out=packed)
        arrived = self.sides.rows(count, sides.shape[1])
        rows = self.rows.rows(count, 2 * o.hidden)
        dist.all_to_all_single(arrived, sides, self.receives, self.sends)
        dist.all_to_all_single(rows, packed, self.receives, self.sends)

        ids, weights, token = (part.flatten() for part in arrived.split([8 * o.top_k, 4 * o.top_k, 4], 1))
        ids = ids.view(torch.int64).view(count, o.top_k)
        weights = weights.view(torch.float32).view(count, o.top_k)
        ours = (ids >= self.first) & (ids < self.end)
        self.ids = torch.where(ours, ids - self.first, -1)
        self.weights = torch.where(ours, weights, 0)
        self.source_token = token.view(torch.int32)
        self.received = rows

    def combine(self, rows: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        """out[t]: the sum of token t's rows, each times the weights that t gives the experts where it was."""
        o = self.options
        back = self.packed.rows(len(self.token), 2 * o.hidden)
        dist.all_to_all_single(back, rows, self.sends, self.receives)
        of_rank = torch.zeros(o.tokens, o.ranks).scatter_add_(1, self.owners, inputs.weights)
        return self.sums(back.view(torch.bfloat16), of_rank[self.token, self.to_rank].unsqueeze(1))

    def sums(self, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """A few tokens at a time, whose terms stay in the cache: that takes a fifth of the time of all at once."""
        o, few = self.options, 16
        by_token = self.token.argsort(stable=True)
        ends = torch.searchsorted(self.token[by_token], torch.arange(0, o.tokens + few, few)).tolist()
        out = torch.empty(o.tokens, o.hidden, dtype=torch.bfloat16)
        for part, first in enumerate(range(0, o.tokens, few)):
            those = by_token[ends[part] : ends[part + 1]]
            terms = rows[those].float().mul_(weights[those])
            count = min(few, o.tokens - first)
            total = torch.zeros(count, o.hidden).index_add_(0, self.token[those] - first, terms)
            out[first : first + count] = total
        return out


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise RuntimeError(f"{what} are wrong")


def check_dispatch(exchange: Exchange) -> None:
    """Against the inputs of all ranks, without what the exchange worked out."""
    begin = 0
    for source in range(exchange.options.ranks):
        sent = Inputs(exchange.options, source)
        ours = (sent.ids >= exchange.first) & (sent.ids < exchange.end)
        tokens = ours.any(1).nonzero().flatten()
        rows = slice(begin, begin + len(tokens))
        begin += len(tokens)
        expect(exchange.receives[source] == len(tokens), "counts")
        expect(torch.equal(exchange.received[rows].view(torch.bfloat16), sent.x[tokens]), "rows")
        expect(torch.equal(exchange.source_token[rows].long(), tokens), "source tokens")
        ids = torch.where(ours, sent.ids - exchange.first, -1)[tokens]
        expect(torch.equal(exchange.ids[rows], ids), "ids")
        expect(torch.equal(exchange.weights[rows], (sent.weights * ours)[tokens]), "weights")


def check_combine(out: torch.Tensor, inputs: Inputs) -> None:
    expected = inputs.weights.double().sum(1, keepdim=True) * inputs.x.double()
    # Half a unit in the last place of bf16, and a little for the sums in f32.
    expect(bool(((out.double() - expected).abs() <= expected.abs() * (2**-8 * 1.01)).all()), "combined values")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Microseconds from a common start to the end of the slowest rank, and what the call returned."""
    dist.barrier()
    begin = time.perf_counter()
    result = call()
    mine = torch.tensor((time.perf_counter() - begin) * 1e6)
    dist.all_reduce(mine, dist.ReduceOp.MAX)
    return float(mine), result


def measure(exchange: Exchange, inputs: Inputs) -> dict[str, list[float]]:
    options = exchange.options
    times: dict[str, list[float]] = {"dispatch": [], "combine": []}
    last = options.warmup + options.iterations - 1
    for i in range(last + 1):
        dispatch_us, _ = timed(lambda: exchange.dispatch(inputs))
        if i in (0, last):
            check_dispatch(exchange)
        combine_us, out = timed(lambda: exchange.combine(exchange.received, inputs))
        if i in (0, last):
            check_combine(out, inputs)
        if i >= options.warmup:
            times["dispatch"].append(dispatch_us)
            times["combine"].append(combine_us)
    return times


def run(index: int, options: argparse.Namespace, meeting: str) -> None:
    rank = options.first_rank + index
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // options.ranks))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.ranks)
    inputs = Inputs(options, rank)
    exchange = Exchange(options)
    times = measure(exchange, inputs)
    rows = torch.tensor(sum(exchange.receives))
    dist.all_reduce(rows)
    if rank == 0:
        result = {name: getattr(options, name) for name in ("ranks", "tokens", "hidden", "top_k", "experts")}
        for part, us in times.items():
            result[part] = {
                "median_us": statistics.median(us),
                "max_us": max(us),
                "recv_bytes_per_rank": int(rows) / options.ranks * options.hidden * 2,
            }
        json.dump({"schema": "switchyard-gloo-alltoall/1", **result, "checked": True}, sys.stdout)
    dist.destroy_process_group()


def main() -> None:
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        meeting = options.meeting or f"file://{os.path.join(folder, 'meeting')}"
        # Forked, so that PyTorch is imported once: nothing has started a thread so far.
        mp.start_processes(run, (options, meeting), options.local_ranks or options.ranks, start_method="fork")


if __name__ == "__main__":
    main()
