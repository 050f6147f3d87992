"""Signs in at the pages of our service as a browser without scripts does: forms that are filled in and sent."""

import html.parser
import re
import urllib.parse
import urllib.request


class Forms(html.parser.HTMLParser):
    """The forms of a page: where each goes, and what it sends."""

    def __init__(self, page):
        super().__init__()
        self.forms = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.forms.append((attributes["action"], {}))
        elif tag in ("input", "button") and self.forms and attributes.get("name"):
            # Of several buttons the first is the one that goes on.
            self.forms[-1][1].setdefault(attributes["name"], attributes.get("value") or "")

    def onwards(self):
        """The form that signs in, or that allows."""
        return next((action, fields) for action, fields in self.forms if "password" in fields or "answer" in fields)


def sign_in(link, username, password):
    """Opens the link as a browser without scripts does, and returns the code that its last page shows."""
    cookies = urllib.request.HTTPCookieProcessor()
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}), cookies)
    origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(link))
    with browser.open(link, timeout=60) as answer:
        page, where = answer.read().decode(), answer.geturl()
    for _ in range(4):
        found = re.search(r"[?&]code=([^&]+)", where)
        if found:
            return urllib.parse.unquote(found[1])
        action, fields = Forms(page).onwards()
        if "password" in fields:
            fields |= {"username": username, "password": password}
        request = urllib.request.Request(
            urllib.parse.urljoin(where, action),
            urllib.parse.urlencode(fields).encode(),
            {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded"},
        )
        with browser.open(request, timeout=60) as answer:
            page, where = answer.read().decode(), answer.geturl()
    raise AssertionError(f"no code came:\n{page}")
