"""What a trace has for a page: spans by lane, and percentiles of phases where nothing better is known."""

from __future__ import annotations

import numpy as np

from .errors import ReportError
from .model import Phase, Timeline
from .record import summary
from .values import Value

# A browser draws so many without effort. The file that the page saves has all.
MOST_SPANS = 6000


def _spans(file: Value) -> list[tuple[int, int, str, float, float]]:
    """Returns rank, worker, name, begin and length of each complete event, in microseconds."""
    spans = []
    for event in file["traceEvents"].each():
        if event["ph"].text() != "X":
            continue
        begin, length = event["ts"].number(), event["dur"].number()
        lane = event["pid"].whole(0, 1 << 31), event["tid"].whole(0, 1 << 31)
        spans.append((*lane, event["name"].text(), begin, length))
    if not spans:
        raise ReportError(f"{file.where}: traceEvents: expected spans (ph X), seen none")
    return spans


def timeline(file: Value) -> Timeline:
    spans = _spans(file)
    lanes = sorted({span[:2] for span in spans})
    names = sorted({span[2] for span in spans})
    lane_of = {lane: index for index, lane in enumerate(lanes)}
    name_of = {name: index for index, name in enumerate(names)}
    zero = min(span[3] for span in spans)
    kept = sorted(spans, key=lambda span: -span[4])[:MOST_SPANS]
    kept.sort(key=lambda span: span[3])
    return Timeline(
        [f"rank {rank}" if worker == 0 else f"rank {rank}, worker {worker}" for rank, worker in lanes],
        names,
        [(lane_of[span[:2]], name_of[span[2]], round(span[3] - zero, 3), round(span[4], 3)) for span in kept],
        len(spans) - len(kept),
    )


def phases(file: Value) -> list[Phase]:
    lists: dict[str, list[float]] = {}
    for span in _spans(file):
        lists.setdefault(span[2], []).append(span[4])
    return [summary(name, np.array(us)) for name, us in sorted(lists.items())]
