"""Pages of switchyard.report in a real browser: what is drawn, what keys and sliders do, that nothing is fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import browser
import pytest
import report_files as files
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from switchyard.report import make_page

SECTIONS = ("matrices", "experts", "balance", "phases", "predicted", "timeline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def driver(folder):
    driver = browser.start(folder)
    yield driver
    driver.quit()


def write_page(folder, name, **contents) -> Path:
    path = folder / f"{name}.html"
    path.write_text(make_page(files.write(folder, **contents)))
    return path


@pytest.fixture(scope="module")
def whole(folder):
    """A page that has all that a page can have."""
    return write_page(
        folder, "run", bench=files.bench(), record=files.whole_record(), trace=files.trace(), plan=files.plan()
    )


# To load a page takes a second, most of it for the library that draws. So tests share one, and leave it as it was.
@pytest.fixture(scope="module")
def the_page(driver, whole):
    page = browser.Page(driver, whole)
    page.requested = list(page.requests())
    return page


@pytest.fixture
def page(the_page):
    yield the_page
    assert the_page.complaints() == []


def shown(page):
    return [section for section in SECTIONS if page.find(section).is_displayed()]


def test_all_is_drawn_and_nothing_is_fetched(page, whole):
    assert shown(page) == list(SECTIONS)
    assert not page.find("alert").is_displayed()
    assert page.script(too_wide) == []
    charts = page.script(
        "return [...document.querySelectorAll('.chart')].map((chart) => chart.querySelectorAll('path').length)"
    )
    assert len(charts) == 12 and min(charts) > 3
    # The case that is shown first is the last: the recording, in which waits grow with the rank.
    assert "In a dispatch the others wait 3 us for rank 3" in page.find("matrices-summary").text
    page.script("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    for name in ("matrix", "expert", "balance", "phase", "predicted"):
        assert len(page.find(f"{name}-table").find_elements("tag name", "tr")) > 3, name
    page.script("document.querySelectorAll('details').forEach((each) => (each.open = false))")
    own = whole.as_uri()
    assert own in page.requested
    assert [url for url in page.requested if url != own and not url.startswith(("data:", "blob:"))] == []


def test_the_slider_of_time(page):
    before = page.drawn("expert-chart")
    assert page.find("time-shown").text.startswith("steps 1 to 2: ")
    page.find("time").send_keys(Keys.ARROW_RIGHT)
    assert page.find("time-shown").text.startswith("steps 3 to 4: ")
    assert page.drawn("expert-chart") != before
    page.find("time").send_keys(Keys.END)
    assert page.find("time-shown").text.startswith("steps 11 to 12: ")
    assert page.find("time").get_attribute("aria-valuetext") == page.find("time-shown").text
    page.find("time").send_keys(Keys.HOME)
    assert page.drawn("expert-chart") == before


def test_the_slider_of_replicas(page):
    before = page.drawn("load-chart"), page.drawn("replica-chart")
    text = page.find("balance-summary").text
    assert page.find("replicas-shown").text == "16, 0 of them replicas"
    page.find("replicas").send_keys(Keys.END)
    assert page.find("replicas-shown").text == "48, 32 of them replicas"
    assert page.drawn("load-chart") != before[0] and page.drawn("replica-chart") != before[1]
    assert page.find("balance-summary").text != text
    assert re.fullmatch(
        r"The heaviest GPU has [\d.]+ times the mean load instead of [\d.]+; .* of the tokens .*\.", text
    )
    page.find("replicas").send_keys(Keys.HOME)
    assert (page.drawn("load-chart"), page.drawn("replica-chart")) == before


def test_cases_are_chosen(page):
    before = page.find("matrices-summary").text, page.drawn("phase-chart")
    page.find("case").send_keys(Keys.ARROW_UP)
    assert "In a dispatch the others wait 300 us for rank 2, and 20 us for" in page.find("matrices-summary").text
    assert not page.find("time").is_displayed()  # a benchmark is one point in time
    assert page.drawn("phase-chart") != before[1]
    page.find("case").send_keys(Keys.ARROW_DOWN)
    assert (page.find("matrices-summary").text, page.drawn("phase-chart")) == before


def test_keys_alone_reach_everything(page, driver):
    page.script("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
    seen = []
    for _ in range(40):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        element = driver.switch_to.active_element
        if element.tag_name in ("body", "html"):
            break
        outline = page.script("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none", element.get_attribute("outerHTML")
        seen.append(element.get_attribute("id") or element.get_attribute("data-move") or element.tag_name)
        if seen[-1] == "timeline-chart":
            break
    assert seen[0] == "a" and seen.count("summary") == 5
    assert [name for name in seen if name not in ("summary", "a")] == [
        *("case", "theme", "time", "replicas", "in", "out", "left", "right", "all", "phase", "save", "timeline-chart")
    ]


def test_keys_move_the_timeline(page):
    chart = page.find("timeline-chart")
    whole = page.drawn("timeline-chart")

    def shown_range():
        return page.script("return document.getElementById('timeline-chart').layout.xaxis.range")

    low, high = shown_range()
    chart.send_keys("+")
    assert shown_range() == [pytest.approx(low + (high - low) / 4), pytest.approx(high - (high - low) / 4)]
    assert page.drawn("timeline-chart") != whole
    for _ in range(3):
        chart.send_keys(Keys.ARROW_RIGHT)
    assert shown_range() == [pytest.approx((low + high) / 2), pytest.approx(high)]  # no further
    page.driver.find_element("css selector", "[data-move=out]").click()
    assert shown_range() == [low, high] and page.drawn("timeline-chart") == whole
    page.find("phase").send_keys("combine")
    assert page.drawn("timeline-chart") != whole
    page.find("phase").send_keys(Keys.HOME)
    assert page.drawn("timeline-chart") == whole


def test_the_trace_is_saved_as_it_was(page, driver, folder):
    page.find("save").click()
    saved = folder / "switchyard-trace.json"
    WebDriverWait(driver, 10, poll_frequency=0.05).until(lambda _: saved.exists() and saved.stat().st_size > 0)
    assert json.loads(saved.read_text()) == files.trace()


# Charts that are wider than the places that they are in.
too_wide = """return [...document.querySelectorAll('.chart')].filter((each) => each.offsetWidth > 0 &&
    each.querySelector('svg').getBoundingClientRect().width > each.offsetWidth + 1).map((each) => each.id)"""


@pytest.mark.parametrize("width", [320, 768, 1920, 1280])
def test_nothing_is_wider_than_the_screen(page, driver, width):
    page.size(width, 900)
    wide = "return document.documentElement.scrollWidth"
    WebDriverWait(driver, 10, poll_frequency=0.05).until(lambda _: page.script(wide) <= width)
    WebDriverWait(driver, 10, poll_frequency=0.05).until(lambda _: page.script(too_wide) == [])
    sizes = page.script(
        "return [...document.querySelectorAll('button, select, input')].map((each) => each.offsetHeight)"
    )
    assert min(size for size in sizes if size > 0) >= 44  # for fingers


def contrast(one: list[float], other: list[float]) -> float:
    """By the WCAG."""

    def light(colour):
        parts = [each / 255 for each in colour]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    brighter, darker = sorted((light(one), light(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_light_and_dark_can_be_read(page):
    def theme():
        return page.script("return document.documentElement.dataset.theme")

    def colour(selector, name):
        value = page.script(f"return getComputedStyle(document.querySelector('{selector}')).{name}")
        return [float(part) for part in re.findall(r"[\d.]+", value)[:3]]

    def check(expected):
        WebDriverWait(page.driver, 10, poll_frequency=0.02).until(
            lambda _: theme() == expected, f"{expected}: not shown"
        )
        paper = colour("body", "backgroundColor")
        for place, name in (
            ("h2", "color"),
            (".hint", "color"),
            ("summary", "color"),
            ("#phase-chart .xtick text", "fill"),
        ):
            assert contrast(colour(place, name), paper) >= 4.5, (expected, place)

    check("light")
    page.prefer("dark")
    check("dark")
    page.find("theme").click()
    check("light")
    page.prefer("light")
    page.prefer("dark")
    check("light")  # as the reader has chosen


# Last, since these are other pages.
def test_on_a_phone_a_page_is_no_wider_from_the_start(driver, folder):
    page = browser.Page(driver, write_page(folder, "latency", latency=files.latency()), width=360)
    assert shown(page) == ["matrices", "experts", "balance", "phases"]
    assert page.script("return document.documentElement.scrollWidth") <= 360
    assert page.script(too_wide) == []
    assert page.complaints() == []


def test_what_files_lack_is_left_out(driver, folder):
    page = browser.Page(driver, write_page(folder, "plan", plan=files.plan()))
    assert shown(page) == ["predicted"]
    assert "Nothing of what the plan predicts was measured" in page.find("predicted-summary").text
    assert page.complaints() == []
