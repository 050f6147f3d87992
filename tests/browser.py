"""A headless Chromium, driven over the W3C WebDriver protocol: what a person does, and what they see.

`chromium` and `chromedriver` are the distribution's. The protocol is JSON over HTTP, so nothing else is needed.
"""

import base64
import json
import shutil
import tempfile
import urllib.error
import urllib.request

from processes import until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"tab": "\ue004", "enter": "\ue007"}


class WebDriverError(AssertionError):
    """The driver could not do what was asked."""


class Browser:
    """One browser with a profile of its own. `scripts=False` is a browser that runs none."""

    def __init__(self, testbed, name="browser", scripts=True, dark=False):
        # Not in the testbed's directory: the browser puts a socket there, whose path may not be long.
        self.directory = tempfile.mkdtemp(prefix="browser-")
        driver = shutil.which("chromedriver")
        assert driver, "chromedriver is missing: run tests/system"
        environment = testbed.environment()
        environment["TMPDIR"] = self.directory
        # The driver takes a port at random without asking whether it is free, and ends when it isn't.
        for _ in range(10):
            self.process = testbed.start(f"{name}-driver", [driver, "--port=0"], environment)
            said = self.process.wait_for(r"started successfully on port (?P<port>\d+)|Address already in use")
            if said["port"]:
                break
            self.process.stop()
        port = said["port"]
        assert port, "ten ports at random, and none was free"
        self.address = f"http://127.0.0.1:{port}"
        options = {
            "args": [
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"),
                *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
                *(f"--user-data-dir={self.directory}/profile", "--window-size=900,1100", "--lang=en"),
                *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            ],
            "prefs": {"credentials_enable_service": False, "profile.password_manager_leak_detection": False},
        }
        if not scripts:
            options["prefs"]["profile.managed_default_content_settings.javascript"] = 2
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        answer = self._ask("POST", "/session", {"capabilities": capabilities})
        self.session = f"/session/{answer['sessionId']}"

    def close(self):
        self._ask("DELETE", self.session)
        self.process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def go(self, url):
        self._ask("POST", f"{self.session}/url", {"url": url})

    def url(self):
        return self._ask("GET", f"{self.session}/url")

    def title(self):
        return self._ask("GET", f"{self.session}/title")

    def text(self, selector="body"):
        return self._ask("GET", f"{self.session}/element/{self.find(selector)}/text")

    def find(self, selector):
        """The first element that the CSS selector, or the XPath that begins with a slash, finds."""
        using = "xpath" if selector.startswith("/") else "css selector"
        return self._ask("POST", f"{self.session}/element", {"using": using, "value": selector})[ELEMENT]

    def has(self, selector):
        try:
            self.find(selector)
            return True
        except WebDriverError:
            return False

    def type(self, selector, text):
        element = self.find(selector)
        self._ask("POST", f"{self.session}/element/{element}/clear", {})
        self._ask("POST", f"{self.session}/element/{element}/value", {"text": text})

    def press(self, *keys):
        """Presses keys, one after another, wherever the focus is: names of `KEYS`, or text."""
        typed = [key for each in keys for key in ([KEYS[each]] if each in KEYS else each)]
        actions = [{"type": kind, "value": key} for key in typed for kind in ("keyDown", "keyUp")]
        self._ask("POST", f"{self.session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def click(self, selector):
        self._ask("POST", f"{self.session}/element/{self.find(selector)}/click", {})

    def button(self, words):
        """Clicks the button, or the link that looks like one, with these words; returns on the page it leads to."""
        self.follow(f"//*[self::button or self::a][normalize-space()='{words}']")

    def follow(self, selector):
        """Clicks; returns on the page that leads to."""
        left = self.find("html")
        self.click(selector)
        until(lambda: self._is_on_another_page_than(left), f"{selector} leads to another page")

    def focused(self):
        """The id, name or words of what has the focus."""
        element = self._ask("GET", f"{self.session}/element/active")[ELEMENT]
        for attribute in ("id", "name"):
            value = self._ask("GET", f"{self.session}/element/{element}/attribute/{attribute}")
            if value and value != "answer":
                return value
        return self._ask("GET", f"{self.session}/element/{element}/text")

    def spoken(self, selector):
        """What a screen reader calls an element: its role and its name."""
        element = self.find(selector)
        role = self._ask("GET", f"{self.session}/element/{element}/computedrole")
        return role, self._ask("GET", f"{self.session}/element/{element}/computedlabel")

    def script(self, script, *arguments):
        return self._ask("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def cookies(self):
        return {cookie["name"]: cookie for cookie in self._ask("GET", f"{self.session}/cookie")}

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self._ask("GET", f"{self.session}/screenshot")))

    def wait_for(self, words, timeout=30):
        """Waits until the page shows `words`."""
        try:
            until(lambda: self._shows(words), f"the page shows {words!r}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.url()}\n{self.text()}") from None

    def _is_on_another_page_than(self, root):
        try:
            return self.find("html") != root
        except WebDriverError:
            # Between two pages.
            return False

    def _shows(self, words):
        try:
            return words in self.text()
        except WebDriverError:
            # Between two pages.
            return False

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise WebDriverError(error.read().decode(errors="replace")[:600]) from None


def sign_in(browser, username, password):
    """Types username and password into the sign-in page."""
    browser.wait_for("Sign in to go on.")
    browser.type("#username", username)
    browser.type("#password", password)
    browser.button("Sign in")


def allow(browser):
    """Consents, and returns the code that the page shows."""
    browser.wait_for("asks to act for you")
    browser.button("Allow")
    browser.wait_for("Copy this code")
    return browser.text("#code")


