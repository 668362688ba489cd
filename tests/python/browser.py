"""Chromium without a window, which says what pages complain of and what they ask the network for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Iterator

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

# Names do not resolve, and the browser fetches nothing for itself.
OFFLINE = ["--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update"]


def program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    raise RuntimeError(f"expected one of {', '.join(names)} in PATH (Debian's chromium and chromium-driver), seen none")


def start(downloads: Path) -> webdriver.Chrome:
    options = Options()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for argument in [
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        *sandbox,
        *OFFLINE,
    ]:
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(program("chromedriver")))


class Page:
    """A page in a browser, drawn."""

    def __init__(self, driver: webdriver.Chrome, path: Path, *, width: int = 1280) -> None:
        self.driver = driver
        self.size(width, 900)
        self.prefer("light")
        for log in ("browser", "performance"):
            driver.get_log(log)
        driver.get(path.as_uri())
        WebDriverWait(driver, 20, poll_frequency=0.05).until(
            lambda _: self.script("return document.documentElement.dataset.ready")
        )

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, name: str) -> WebElement:
        return self.driver.find_element("id", name)

    def drawn(self, chart: str) -> str:
        """Returns what is drawn of a chart: the shapes themselves, not what they were made of."""
        return self.script(
            "return [...document.querySelectorAll(`#${arguments[0]} path, #${arguments[0]} text`)].map((part) => "
            "(part.getAttribute('d') ?? part.textContent) + part.getAttribute('transform')).sort().join()",
            chart,
        )

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> Iterator[str]:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                yield message["params"]["request"]["url"]
