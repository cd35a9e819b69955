"""A report of a grid's size as a reader meets it: in a real browser, on a telephone and a screen, light and dark."""

import pytest
from grid_results import curves, example_groups, grid_results

from raw2s.report import write_report

SIZE = 3_000_000
"""Bytes of a page that is sent by mail without a thought."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(grid_results(), curves(), example_groups(), tmp_path_factory.mktemp("grid"))


def test_a_grids_page_stays_light(page):
    assert page.stat().st_size < SIZE


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_screen_says_nothing_to_the_console_and_is_read_in_light_and_dark(page, window, width, scheme):
    window.open(page, width=width, scheme=scheme)
    window.value("document.querySelectorAll('details').forEach(own => { own.open = true; })")
    assert window.value("document.documentElement.scrollWidth") <= width
    assert window.said == []
    assert all(contrast >= 4.5 for contrast, _ in window.faintest())
    dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(value => value < 60)"
    assert window.value(dark) == (scheme == "dark")
    scale = (
        "[...document.querySelectorAll('figure svg')].map(own => own.getBoundingClientRect().width / own.viewBox.baseVal.width)"
    )
    assert min(window.value(scale)) * 8.5 > 7.5  # pixels of the smallest letters of a figure
    shown = "[document.querySelector('thead th:nth-child(3)'), ...document.querySelectorAll('.utterance')]"
    ends = window.value(f"{shown}.map(own => own.getBoundingClientRect().right)")
    assert len(ends) == 10 and max(ends) <= width  # the first table up to the PGR, and every example whole


def test_what_a_page_says_to_its_console_is_heard(window, tmp_path):
    """The test above would see an error."""
    file = tmp_path / "wrong.html"
    file.write_text("<body style='width: 900px'><script>console.error('one'); missing()</script>")
    window.open(file, width=390, scheme="light")
    assert len(window.said) == 2
    assert window.value("document.documentElement.scrollWidth") > 390
    window.said.clear()
