"""Checks of the page, and a visit of it in a browser: what page.py stands on."""

import json
import time
import urllib.parse

CHECKS = {}
REAL = set()  # checks that a real server can be asked for too


def check(what, bar, real=False):
    def add(function):
        CHECKS[function.__name__] = (what, bar, function)
        if real:
            REAL.add(function.__name__)
        return function
    return add


def expect(condition, message):
    if not condition:
        raise AssertionError(message)


def until(page, expression, arg=None, seconds=60):
    """Waits until the expression holds. Playwright's own way needs eval, which the policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression, arg):
        expect(time.monotonic() < end, f"waited in vain for {expression} {arg or ''}")
        time.sleep(0.02)


class Visit:
    """One browser context with the page open. Everything that it asks for is noted, and every error
    and violation of the content security policy."""

    def __init__(self, browser, url, mock, size=(1280, 800), scheme="light", key=None, go=True):
        self.url, self.mock = url, mock
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme,
            accept_downloads=True, service_workers="block")
        self.context.set_default_timeout(60000 if mock is None else 10000)
        self.page = self.context.new_page()
        self.sent, self.addresses, self.wrongs = [], [], []
        self.expected = ()  # statuses that a check provokes: Chromium logs each as an error
        self.context.on("request", self.note_request)
        self.page.on("pageerror", lambda error: self.wrongs.append(f"error: {error}"))
        self.page.on("console", self.note_console)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error("
            "`CSP: ${e.violatedDirective} ${e.blockedURI} ${e.sample}`));")
        if mock is None:  # short replies, so that it ends soon
            self.settings = {"key": key or "", "sampling": {"max_tokens": 40, "temperature": 0}}
            self.page.add_init_script(
                "if (!localStorage.getItem('marco-settings')) localStorage.setItem("
                f"'marco-settings', {json.dumps(json.dumps(self.settings))});")
        if go:
            self.open()

    def note_request(self, request):
        self.addresses.append(request.url)
        if request.method == "POST":
            self.sent.append(json.loads(request.post_data))

    def note_console(self, message):
        if message.type not in ("error", "warning"):
            return
        if any(f"status of {status}" in message.text for status in self.expected):
            return
        if "net::" in message.text and "net" in self.expected:
            return
        self.wrongs.append(message.text)

    def open(self):
        self.page.goto(self.url)
        self.until("document.querySelector('#model').options.length > 0 || "
                                    "document.querySelector('.notice')")

    def until(self, expression, arg=None):
        until(self.page, expression, arg, 60 if self.mock is None else 10)

    def send(self, text, wait=True):
        self.page.fill("#input", text)
        self.page.press("#input", "Enter")
        if wait:
            self.idle()

    def idle(self):
        self.until("document.querySelector('#stop').hidden")

    def wait_text(self, selector, text):
        self.until(
            "([s, t]) => [...document.querySelectorAll(s)].some((e) => e.textContent.includes(t))",
            arg=[selector, text])

    def at_length(self):
        """Replies of a real server may now be long enough to watch and to stop."""
        if self.mock is None:
            self.page.locator("header .open-settings").click()
            self.page.fill("#max_tokens", "800")
            self.page.click("#settings-close")

    def reply(self):
        return self.page.locator(".reply .markdown").last.inner_text()

    def style(self, selector, name):
        return self.page.locator(selector).last.evaluate(
            "(element, name) => getComputedStyle(element)[name]", name)

    def close(self):
        host = urllib.parse.urlsplit(self.url).netloc
        others = [a for a in self.addresses
                  if urllib.parse.urlsplit(a).netloc != host and not a.startswith("blob:")]
        self.context.close()
        expect(not others, f"asked other hosts: {others[:3]}")
        expect(not self.wrongs, f"the console says: {self.wrongs[:3]}")
