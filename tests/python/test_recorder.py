"""switchyard.Recorder, against what the ids say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import report_files as files
import switchyard
from ranks import as_threads
from switchyard.report import make_page

RANKS, EXPERTS, TOP_K, HIDDEN = 3, 8, 2, 16
LOCAL = [3, 3, 2]
FIRST = [0, 3, 6]


def ids_of(rank: int, step: int, tokens: int = 5) -> np.ndarray:
    """Distinct experts; another routing at each step."""
    random = np.random.default_rng(100 * rank + step)
    return np.array([random.choice(EXPERTS, TOP_K, replace=False) for _ in range(tokens + rank)])


def tokens_of(source: int, step: int) -> np.ndarray:
    return np.bincount(ids_of(source, step).ravel(), minlength=EXPERTS)


def rank_of(expert: int) -> int:
    return max(rank for rank in range(RANKS) if FIRST[rank] <= expert)


def rows_between(source: int, to: int, step: int) -> int:
    """Distinct tokens."""
    return sum(any(rank_of(expert) == to for expert in token) for token in ids_of(source, step))


def run_step(buffer, rank: int, step: int) -> None:
    ids = ids_of(rank, step)
    routed = buffer.dispatch(np.ones((len(ids), HIDDEN), np.float32), ids)
    buffer.combine(routed.x, routed.handle)


def on_ranks(body, kind=switchyard.Buffer, **options):
    def run(communicator):
        with kind(
            communicator,
            max_tokens=8,
            hidden=HIDDEN,
            num_experts=EXPERTS,
            top_k=TOP_K,
            engine="cpu",
            timeout=20,
            **options,
        ) as buffer:
            return body(buffer, communicator.rank)

    return as_threads(RANKS, run)


def test_what_is_recorded_is_what_happened(tmp_path):
    steps = 6
    path = tmp_path / "run.json"

    def body(buffer, rank):
        run_step(buffer, rank, 99)  # before it begins
        recorder = switchyard.Recorder(buffer)
        for step in range(steps):
            run_step(buffer, rank, step)
            run_step(buffer, rank, step)
            recorder.step()
        recorder.close()
        run_step(buffer, rank, 98)
        recorder.save(path)

    on_ranks(body)
    parts = json.loads(path.read_text())["parts"]
    for rank, part in enumerate(parts):
        mine = slice(FIRST[rank], FIRST[rank] + LOCAL[rank])
        assert (part["rank"], part["ranks"], part["first_expert"]) == (rank, RANKS, FIRST[rank])
        assert part["steps"] == list(range(1, steps + 1)) and part["dispatches"] == part["combines"] == [2] * steps
        for step in range(steps):
            expected = 2 * sum(tokens_of(source, step) for source in range(RANKS))[mine]
            assert part["expert_tokens"][step] == expected.tolist()
        for source in range(RANKS):
            assert part["tokens"][source] == (2 * sum(tokens_of(source, step) for step in range(steps)))[mine].tolist()
            came = 2 * sum(rows_between(source, rank, step) for step in range(steps))
            back = 2 * sum(rows_between(rank, source, step) for step in range(steps))
            # float32, ids of 8 bytes, the number of the token; no weights
            assert part["dispatch"]["bytes"][source] == came * (4 * HIDDEN + 8 * TOP_K + 4)
            assert part["combine"]["bytes"][source] == back * 4 * HIDDEN
        assert part["seconds"] == sorted(part["seconds"]) and min(part["dispatch_us"]) > 0
        assert all(
            len(part[call]["wait_us"]) == RANKS and min(part[call]["wait_us"]) >= 0 for call in ("dispatch", "combine")
        )
    (case,) = files.data_of(make_page([str(path)]))["cases"]
    for step, tokens in enumerate(case["experts"]["tokens"]):
        assert tokens == (2 * sum(tokens_of(source, step) for source in range(RANKS))).tolist()


def test_long_runs_keep_all_tokens_in_few_points(tmp_path):
    steps, keep = 23, 4

    def body(buffer, rank):
        recorder = switchyard.Recorder(buffer, keep=keep)
        for step in range(steps):
            run_step(buffer, rank, step)
            recorder.step()
        recorder.save_rank(tmp_path / f"rank{rank}.json")

    on_ranks(body)
    paths = [tmp_path / f"rank{rank}.json" for rank in range(RANKS)]
    for rank, path in enumerate(paths):
        (part,) = json.loads(path.read_text())["parts"]
        assert len(part["steps"]) <= keep and part["steps"][-1] == steps
        begin = 0
        for end, tokens in zip(part["steps"], part["expert_tokens"]):
            between = sum(tokens_of(source, step) for source in range(RANKS) for step in range(begin, end))
            assert tokens == between[FIRST[rank] : FIRST[rank] + LOCAL[rank]].tolist()
            begin = end
        assert sum(part["dispatches"]) == steps
    (case,) = files.data_of(make_page([str(path) for path in paths]))["cases"]
    assert np.sum(case["experts"]["tokens"]) == sum(
        tokens_of(rank, step).sum() for rank in range(RANKS) for step in range(steps)
    )


def test_a_low_latency_buffer_counts_what_it_is_given(tmp_path):
    steps = 5
    path = tmp_path / "run.json"

    def body(buffer, rank):
        recorder = switchyard.Recorder(buffer)
        for step in range(steps):
            ids = ids_of(rank, step)
            x = np.ones((len(ids), HIDDEN), np.float32)
            received = buffer.dispatch(x, ids, cast="fp8", **recorder.dispatch_counters)
            rows = np.zeros(received.x.shape, np.float32).astype("float16")
            buffer.combine(
                rows, received.handle, topk_weights=np.ones(ids.shape, np.float32), **recorder.combine_counters
            )
            recorder.step()
        recorder.save(path)

    on_ranks(body, switchyard.LowLatencyBuffer)
    parts = json.loads(path.read_text())["parts"]
    for rank, part in enumerate(parts):
        for step in range(steps):
            expected = sum(tokens_of(source, step) for source in range(RANKS))
            assert part["expert_tokens"][step] == expected[FIRST[rank] : FIRST[rank] + LOCAL[rank]].tolist()
        assert "bytes" not in part["dispatch"] and sum(part["dispatch"]["wait_us"]) > 0
    assert len(files.data_of(make_page([str(path)]))["cases"]) == 1


def test_a_run_without_steps_can_be_saved(tmp_path):
    def body(buffer, rank):
        switchyard.Recorder(buffer).save(tmp_path / "none.json")

    on_ranks(body)
    (case,) = files.data_of(make_page([str(tmp_path / "none.json")]))["cases"]
    assert case["experts"]["tokens"] == []


def test_bad_input():
    def body(buffer, rank):
        with pytest.raises(switchyard.InvalidArgument, match="keep: expected at least 2 points in time, seen 1"):
            switchyard.Recorder(buffer, keep=1)

    on_ranks(body)
