"""Runs a command at a terminal and logs in when it asks: opens the link as a browser without scripts would, signs in,
consents, and types the code.

    log_in_at_terminal.py USERNAME PASSWORD COMMAND...
"""

import html
import http.cookiejar
import os
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from terminal import Terminal  # noqa: E402

FORM = re.compile(r"<form[^>]*action=\"([^\"]*)\"[^>]*>(.*?)</form>", re.DOTALL)
FIELD = re.compile(r"<(?:input|button)([^>]*)>")
ATTRIBUTE = re.compile(r"([\w-]+)=\"([^\"]*)\"")


class Browser:
    def __init__(self):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)

    def go(self, address, form=None):
        with self.opener.open(address, form and urllib.parse.urlencode(form).encode(), timeout=30) as answer:
            return answer.geturl(), answer.read().decode()

    def submit(self, page, having, **values):
        """Fills in the form that has the field `having`."""
        address, text = page
        for action, inside in FORM.findall(text):
            fields = [dict(ATTRIBUTE.findall(found)) for found in FIELD.findall(inside)]
            if having not in [field.get("name") or "" for field in fields] + [field.get("value") or "" for field in fields]:
                continue
            filled = {field["name"]: html.unescape(field.get("value", "")) for field in fields if "name" in field and field.get("type") != "submit"}
            return self.go(urllib.parse.urljoin(address, html.unescape(action)), filled | values)
        raise AssertionError(f"no form with {having} on {address}:\n{text}")


def code(link, username, password):
    browser = Browser()
    page = browser.go(link)
    page = browser.submit(page, "password", username=username, password=password)
    page = browser.submit(page, "allow", answer="allow")
    return re.search(r"<code[^>]*>([^<]+)</code>", page[1])[1].strip()


def main():
    username, password, *command = sys.argv[1:]
    terminal = Terminal(command, os.environ | {"COLUMNS": "4000"}, os.getcwd())
    link = terminal.read(r"(https?://\S+/v2/oauth2/authorize\?\S+)\s")[1]
    terminal.type(code(link, username, password))
    status, screen = terminal.finish()
    print(screen, end="", flush=True)
    sys.exit(status)


main()
