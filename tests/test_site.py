"""The documentation as a site: it builds strictly, every link on it leads somewhere, and it is read on a telephone and in the dark."""

import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag

import pytest
from tiny_runs import ROOT

from raw2s.config import SweepConfig, describe_keys

for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
    pytest.importorskip(needed, reason="the site needs mkdocs: pip install 'raw2s[docs]'")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    """Every page's HTML by its path."""
    return {file: file.read_text(encoding="utf-8") for file in site.rglob("*.html") if file.name != "404.html"}


def test_every_link_leads_to_a_file_and_an_anchor(site, pages):
    anchors = {file: set(re.findall(r'\bid="([^"]+)"', text)) for file, text in pages.items()}
    dead = []
    for file, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]*)"', text):
            path, anchor = urldefrag(unquote(link))
            if link.startswith(("http:", "https:", "data:")):
                continue
            target = (file.parent / path).resolve() if path else file
            if not target.is_file() or (anchor and target in anchors and anchor not in {*anchors[target], "__"}):
                dead.append(f"{file.name}: {link}")
    assert not dead
    assert len(pages) > 25


def test_nothing_is_loaded_from_elsewhere(site, pages):
    loaded = [tag for text in pages.values() for tag in re.findall(r'<(?:script|link|img|iframe)\b[^>]*"https?:[^>]*>', text)]
    assert not [tag for tag in loaded if 'rel="canonical"' not in tag]
    assert not [
        file for file in site.rglob("*.css") if re.search(r"url\([\"']?https?:|@import", file.read_text(encoding="utf-8"))
    ]


def test_the_keys_of_a_config_are_all_there(site):
    page = (site / "config.html").read_text(encoding="utf-8")
    keys = [line.partition(" [")[0] for line in [*describe_keys(), *describe_keys(SweepConfig, "sweep.")] if " [" in line]
    assert len(keys) > 100
    assert not [key for key in keys if f"<code>{key}</code>" not in page]


def test_the_reference_has_what_the_packages_offer(pages):
    import raw2s.decoding
    import raw2s.evaluation
    import raw2s.losses

    text = "".join(pages.values())
    for package in (raw2s.losses, raw2s.decoding, raw2s.evaluation):
        for name in package.__all__:
            where = f"{package.__name__}.{name}"
            assert f'id="{where}"' in text or f'id="{where}.{name}"' in text, where


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served: a page's search is no file's."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["index", "tutorial", "config", "api_losses"])
def test_a_page_fits_its_screen_says_nothing_to_the_console_and_is_read_in_light_and_dark(address, window, name, width, scheme):
    window.said.clear()
    window.open(f"{address}/{name}.html", width=width, scheme=scheme)
    assert window.value("document.documentElement.scrollWidth") <= width
    assert window.said == []
    assert [text for text in window.faintest() if text[0] < 4.5] == []
    dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(value => value < 60)"
    assert window.value(dark) == (scheme == "dark")
