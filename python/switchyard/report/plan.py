"""What a plan's JSON has for a page, next to what was measured."""

from __future__ import annotations

from .model import Measured, Predicted
from .values import Value


def facts(file: Value) -> list[tuple[str, str]]:
    model = file["model"]
    shape = ", ".join(f"{key.replace('_', ' ')} {model[key].plain}" for key in ("hidden", "top_k", "experts"))
    return [
        ("planned for", f"{file['machine']['name'].text()}, calls of {file['library'].text()}"),
        ("planned model", f"{shape}, {file['routing'].text()} routing"),
    ]


def predicted(file: Value, measured: list[Measured]) -> list[Predicted]:
    known = {(each.mode, each.ranks, each.tokens, each.call): each.us for each in measured}
    result = []
    for case in file["cases"].each():
        key = (case["mode"].text(), case["ranks"].whole(1, 1 << 20), case["tokens"].whole(0, 1 << 40))
        for call in ("dispatch", "combine"):
            part = case[call]
            us, low, high = (part[name].number() for name in ("us", "low_us", "high_us"))
            parts = part.get("parts_us")
            needs = {name: each.number() for name, each in parts.items()} if parts is not None else {}
            bottleneck = part["bottleneck"].text()
            result.append(Predicted(*key, call, us, low, high, bottleneck, needs, known.get((*key, call))))
    return result
