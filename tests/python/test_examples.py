"""Every example checks its own result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import devices
import pytest

examples = Path(__file__).resolve().parents[2] / "examples" / "python"
launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def run(*arguments):
    """What a successful program printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if "cuda" in arguments:
        environment.pop("SWITCHYARD_ENGINE", None)  # of conftest.py
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=200
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


no_gpu = devices.why_not("cuda")
gpu = pytest.param("cuda", marks=pytest.mark.skipif(bool(no_gpu), reason=no_gpu))


@pytest.mark.parametrize("device", ["cpu", gpu])
def test_the_language_model_trains_alike_on_four_ranks_and_on_one(device):
    program = examples / "moe_language_model.py"
    printed = run(*launcher, 4, program, "--steps", 12, "--device", device)
    assert "4 ranks against one" in printed and printed.endswith(": ok\n")


@pytest.mark.parametrize("device", ["cpu", gpu])
def test_micro_batches_decode_what_one_process_does(device):
    program = examples / "decode_two_micro_batches.py"
    printed = run(*launcher, 2, program, "--steps", 4, "--rounds", 1, "--device", device)
    for schedule in ("one_after_the_other", "overlapped"):
        assert f"{schedule}: logits at most" in printed
    assert printed.endswith(": ok\n")


def throughput_run(tokens, gbps):
    """What of a file of `switchyard bench --json` matters here."""
    of = {"median_us": 1.0, "gbps_per_rank": gbps}
    return {
        "schema": "switchyard-bench/1",
        "engine": "cpu",
        "ranks": 8,
        "tokens": tokens,
        "dispatch": {"dtype": "fp8", **of},
        "combine": {"dtype": "bf16", **of},
    }


def latency_run():
    cases = [
        {"tokens": tokens, "host": {name: {"gbps_per_rank": tokens / 4} for name in ("dispatch", "combine")}}
        for tokens in (1, 8)
    ]
    sizes = {"engine": "cpu", "ranks": 2, "dtype": "bf16", "coding": "none"}
    return {"schema": "switchyard-latency/1", **sizes, "cases": cases}


@pytest.mark.parametrize("kind, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_bandwidth_is_plotted(kind, magic, tmp_path):
    runs = [throughput_run(1024, 3.5), throughput_run(64, 1.25), throughput_run(64, 1.5), latency_run()]
    paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for path, content in zip(paths, runs):
        path.write_text(json.dumps(content))
    output = tmp_path / f"plot.{kind}"
    printed = run(examples / "plot_bandwidth.py", *paths, "--output", output)
    assert printed.splitlines()[:4] == [
        "combine bf16, cpu, 8 ranks: 64: 1.50  1024: 3.50",
        "dispatch fp8, cpu, 8 ranks: 64: 1.50  1024: 3.50",
        "low-latency combine bf16, cpu, 2 ranks: 1: 0.25  8: 2.00",
        "low-latency dispatch bf16, cpu, 2 ranks: 1: 0.25  8: 2.00",
    ]
    picture = output.read_bytes()
    assert picture.startswith(magic)
    if kind == "svg":
        assert b"tokens a rank" in picture or picture.count(b"<path") > 20  # text may be drawn as paths


def test_a_file_of_something_else_is_named(tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"schema": "something-else/1"}')
    result = subprocess.run(
        [sys.executable, str(examples / "plot_bandwidth.py"), str(other)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1 and "other.json: expected a file of switchyard bench" in result.stderr
