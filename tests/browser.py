"""A headless Chromium as the tests drive it: over the DevTools protocol on a pipe, which needs no package."""

import json
import os
import shutil
import subprocess
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
)


def chromium():
    """The path of one, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


FAINTEST = """
(() => {
  const rgba = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => a * v + (1 - a) * under[i]);
  const light = rgb => rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    if (!e) return [255, 255, 255];
    const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(e.parentElement));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest("style, script, defs, metadata")) continue;
    if (!e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const style = getComputedStyle(e), ground = behind(e);
    const ink = over(rgba(e.closest("svg") ? (style.fill === "none" ? style.color : style.fill) : style.color), ground);
    const [high, low] = [light(ink), light(ground)].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
})()
"""


class Browser:
    """One page of a browser; `said` holds what it wrote to its console and threw."""

    def __init__(self, write, read):
        self.write, self.read = write, read
        self.number, self.session, self.said, self.events, self.buffer = 0, None, [], [], b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self.buffer:
            read = os.read(self.read, 1 << 16)
            assert read, "the browser has ended"
            self.buffer += read
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(message["params"])
        self.events.append(message.get("method"))
        return message

    def open(self, page, *, width, scheme):
        """Show a page, a file or an address, on a screen so wide, to a reader who likes it `light` or `dark`."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while "Page.loadEventFired" not in self.events:
            self._next()

    def value(self, script):
        """Of an expression of the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def faintest(self):
        """The three visible texts nearest their background: their contrast, as WCAG 2 has it, and how they begin."""
        return self.value(FAINTEST)


@contextmanager
def browser(folder):
    """A Chromium with its profile in `folder`."""
    read_here, write_there = os.pipe()
    read_there, write_here = os.pipe()
    # The browser reads from its descriptor 3 and writes to 4.
    command = f'exec "$0" "$@" 3<&{read_there} 4>&{write_there}'
    arguments = [chromium(), *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe"]
    process = subprocess.Popen(["bash", "-c", command, *arguments], pass_fds=(read_there, write_there), stderr=subprocess.DEVNULL)
    os.close(read_there)
    os.close(write_there)
    try:
        yield Browser(write_here, read_here)
    finally:
        process.terminate()
        process.wait()
        os.close(read_here)
        os.close(write_here)
