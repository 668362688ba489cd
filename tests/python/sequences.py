"""Runs many checks in one set of processes, since a rank on a GPU takes seconds to start."""

from __future__ import annotations

import datetime
import faulthandler
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any
from unittest import SkipTest

import devices
from ranks import free_port, play_nodes

seconds_each = 60
skipped = "skipped: "
most_characters = 1800


def _run_one(name: str, group: Any) -> str:
    """Runs "module.function" and returns its error; empty if there is none.

    In "module.function@0112" the ranks play to be on these nodes.
    """
    import torch

    place, _, nodes = name.partition("@")
    module, _, function = place.rpartition(".")
    try:
        play_nodes(group.rank(), [int(node) for node in nodes])
        getattr(importlib.import_module(module), function)(group)
        if devices.on_gpu():
            torch.cuda.synchronize()
    except SkipTest as why:
        return f"{skipped}{why}"
    except BaseException:
        return traceback.format_exc()[-most_characters:]
    return ""


def _child(rank: int, size: int, port: int, device: str, names: list[str], report: str) -> None:
    # Before the library is used: what fails on one rank is soon known on the others.
    os.environ.update(SWITCHYARD_ENGINE=devices.engine(device), SWITCHYARD_TIMEOUT_MS="10000")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    devices.use(device, rank)
    dist.init_process_group(devices.backend(device), timeout=datetime.timedelta(seconds=seconds_each))
    outcomes = dist.new_group(backend="gloo")  # a group of its own: a rank that failed may have left a collective out
    for name in names:
        faulthandler.dump_traceback_later(seconds_each, exit=True, file=sys.stderr)
        mine = _run_one(name, dist.group.WORLD)
        everybody: list[Any] = [None] * size
        dist.all_gather_object(everybody, mine, group=outcomes)
        if rank == 0:
            wrong = "\n".join(f"rank {r}: {text}" for r, text in enumerate(everybody) if text)
            if all(text.startswith(skipped) for text in everybody):
                wrong = everybody[0]
            with Path(report).open("a") as file:
                print(json.dumps([name, wrong]), file=file, flush=True)
    faulthandler.cancel_dump_traceback_later()
    dist.destroy_process_group()


def run(size: int, device: str, names: list[str], report: Path) -> dict[str, str]:
    """Runs functions that take a group. Returns their errors by name; those that were not reached say why.

    A function that cannot run here raises SkipTest on all ranks. Its entry is `skipped` and the reason.
    """
    import torch.multiprocessing as mp

    try:
        mp.spawn(_child, args=(size, free_port(), device, names, str(report)), nprocs=size, join=True)
        why = ""
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        why = str(error)[-most_characters:]
    lines = report.read_text().splitlines() if report.exists() else []
    reached = dict(json.loads(line) for line in lines)
    return {name: f"not reached: {why}" for name in names} | reached
