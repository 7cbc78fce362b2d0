"""A headless Chromium for tests, driven by its DevTools protocol over a pipe: no package and no port."""

import fcntl
import json
import os
import select
import subprocess
import sys
import time

OPTIONS = ["--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run"]
OPTIONS += [f"--disable-{what}" for what in ("gpu", "quic", "background-networking", "component-update", "sync")]
#: Events that say that something on the page went wrong or spoke to the console.
COMPLAINTS = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening"}


class Browser:
    """A running Chromium with an empty profile in ``folder``."""

    def __init__(self, program, folder):
        pipes = [*os.pipe(), *os.pipe()]
        theirs, self._to, self._from, other = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pipes)
        for end in pipes:
            os.close(end)
        # Chromium reads commands from descriptor 3 and writes to 4.
        start = "import os, sys; r, w, *call = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execvp(call[0], call)"
        call = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        with open(f"{folder}.log", "w") as log:
            command = [sys.executable, "-c", start, str(theirs), str(other), *call]
            self._process = subprocess.Popen(command, pass_fds=(theirs, other), stdout=log, stderr=log)
        os.close(theirs)
        os.close(other)
        self._rest, self._number, self.events = b"", 0, []

    def close(self):
        try:
            self.call("Browser.close")
        finally:
            self._process.wait(20)

    def call(self, method, session=None, **parameters):
        """The result of one command; raises RuntimeError if Chromium refuses it, TimeoutError after half a minute."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda one: one.get("id") == self._number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def wait_for(self, method, session):
        return self._wait(lambda one: one.get("method") == method and one.get("sessionId") == session)

    def _wait(self, fits):
        until = time.monotonic() + 30
        while True:
            while b"\0" in self._rest:
                first, self._rest = self._rest.split(b"\0", 1)
                message = json.loads(first)
                if "method" in message:
                    self.events.append(message)
                if fits(message):
                    return message
            if not select.select([self._from], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            self._rest += os.read(self._from, 1 << 16)

    def open(self, address, width=1400, height=900):
        """A new page that has loaded ``address``."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired", page.session)
        return page


class Page:
    """One page of a browser."""

    def __init__(self, browser, session):
        self._browser, self.session = browser, session

    def call(self, method, **parameters):
        return self._browser.call(method, self.session, **parameters)

    def evaluate(self, expression):
        """The value of a JavaScript expression; an exception in it is one here."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def click(self, selector):
        """Press and release the left button in the middle of an element."""
        box = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{box}.scrollIntoView({{ block: 'center' }})")
        x, y = self.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key):
        """Press and release a key, named as in KeyboardEvent.key."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.settle()

    def settle(self):
        """Wait until what was set off, as a change of the address, has been handled."""
        self.evaluate("new Promise(done => setTimeout(() => requestAnimationFrame(done), 20))")

    def _events(self, *methods):
        return [event["params"] for event in self._browser.events if event["method"] in methods and event.get("sessionId") == self.session]

    @property
    def complaints(self):
        """What was said on the console, thrown, blocked or popped up."""
        self.settle()
        return self._events(*COMPLAINTS)

    @property
    def requests(self):
        """The addresses that the page asked for."""
        self.settle()
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
