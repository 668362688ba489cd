"""Makes the pictures of docs/report.md, of a run that is made up:  python tests/python/report_screenshots.py

They are of 16 ranks on 2 nodes, of which one is late, and of experts whose loads change while the run goes on."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import browser
import numpy as np
import report_files as files
from PIL import Image
from selenium.webdriver.common.keys import Keys
from switchyard.report import make_page

RANKS, EXPERTS, POINTS, CALLS = 16, 128, 60, 61
LATE = 11
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "report"


def routed(random: np.random.Generator) -> np.ndarray:
    """Tokens by point in time, source and expert."""
    popular = 0.3 + random.pareto(1.6, EXPERTS)
    waves = np.sin(np.arange(POINTS)[:, None] / 9 + random.uniform(0, 6, EXPERTS))
    share = popular * np.exp(0.5 * waves)
    tokens = share / share.sum(axis=1, keepdims=True) * 8 * 128 * CALLS
    return random.poisson(np.repeat(tokens[:, None], RANKS, axis=1))


def part(rank: int, tokens: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    local = EXPERTS // RANKS
    mine = tokens[:, :, rank * local : (rank + 1) * local]
    calls = POINTS * CALLS
    waits = (random.uniform(4, 12, RANKS) + 60 * (np.arange(RANKS) == LATE)) * (np.arange(RANKS) != rank) * calls
    sent = mine.sum(axis=(0, 2)) * 7400.0
    back = tokens.sum(axis=0)[rank].reshape(RANKS, local).sum(axis=1) * 14336.0
    return {
        "rank": rank,
        "ranks": RANKS,
        "node_by_rank": [each * 2 // RANKS for each in range(RANKS)],
        "mode": "throughput",
        "engine": "cpu",
        "hidden": 7168,
        "top_k": 8,
        "experts": EXPERTS,
        "first_expert": rank * local,
        "steps": list(range(1, POINTS + 1)),
        "seconds": np.cumsum(random.uniform(0.04, 0.05, POINTS)).tolist(),
        "expert_tokens": mine.sum(axis=1).tolist(),
        "dispatches": [CALLS] * POINTS,
        "combines": [CALLS] * POINTS,
        "dispatch": {"wait_us": waits.tolist(), "bytes": sent.tolist()},
        "combine": {"wait_us": (waits * 0.7).tolist(), "bytes": back.tolist()},
        "dispatch_wait_us": random.uniform(4000, 9000, POINTS).tolist(),
        "combine_wait_us": random.uniform(3000, 7000, POINTS).tolist(),
        "dispatch_us": random.uniform(12000, 16000, POINTS).tolist(),
        "combine_us": random.uniform(18000, 24000, POINTS).tolist(),
        "tokens": mine.sum(axis=0).tolist(),
    }


def save(name: str, png: bytes) -> None:
    """With few colours, which is all that charts have."""
    path = FOLDER / f"{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path.name, path.stat().st_size, "bytes")


def main() -> None:
    random = np.random.default_rng(5)
    tokens = routed(random)
    record = files.record(*(part(rank, tokens, random) for rank in range(RANKS)))
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "run.json", Path(folder) / "run.html"
        source.write_text(json.dumps(record))
        path.write_text(make_page([str(source)], title="A run of 16 ranks"))
        driver = browser.start(Path(folder))
        page = browser.Page(driver, path, width=1000)
        page.size(1000, 1300)  # sections are seen as a whole
        page.find("replicas").send_keys(Keys.ARROW_RIGHT)
        page.script("document.activeElement.blur()")
        for name, section in (("waits", "matrices"), ("balance", "balance")):
            save(name, page.find(section).screenshot_as_png)
        page = browser.Page(driver, path, width=390)
        page.find("theme").click()
        page.script("document.activeElement.blur(); document.getElementById('experts').scrollIntoView()")
        save("phone", driver.get_screenshot_as_png())
        driver.quit()


if __name__ == "__main__":
    main()
