"""Sign-in through the site's own identity providers: two instances of `oidc-provider` from npm, which we did not write."""

import json
import socket

import environments
import pytest
from browser import Browser
from testbed import ROOT
from test_sign_in_pages import PASSWORD, address

UPSTREAM = ROOT / "tests" / "upstream"
# Two logins at the campus with a name of the other's domain, one without any, and one whose login is taken over there.
CAMPUS = {
    "alice": {"preferred_username": "alice", "name": "Alice Liddell", "email": "alice@example.edu", "email_verified": True},
    "bob": {"preferred_username": "Bob@Example.EDU", "name": "Bob Dobbs"},
    "mallory": {"preferred_username": "root@lab.example", "name": "Mallory"},
    "trudy": {"preferred_username": "admin@example.org", "name": "Trudy"},
    "nameless": {"name": "Nobody"},
    "alice2": {"preferred_username": "alice", "name": "Another Alice"},
    "local": {"preferred_username": "local", "name": "Wants to be Local"},
    "added": {"preferred_username": "added", "name": "Added Before"},
}
LAB = {"root": {"preferred_username": "root", "name": "Root of the Lab"}}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Provider:
    def __init__(self, testbed, name, accounts):
        self.testbed, self.name, self.accounts = testbed, name, accounts
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.starts = 0
        self.secret = testbed.directory / f"{name}-secret"
        self.secret.write_text("a secret/with+what:has to be&escaped=\n")

    def start(self, redirect_uri):
        self.starts += 1
        environment = self.testbed.environment() | {
            "NODE_PATH": str(environments.node_modules(UPSTREAM)),
            "REDIRECT_URIS": json.dumps([redirect_uri]),
        }
        command = ["node", UPSTREAM / "provider.mjs", self.port, self.name, json.dumps(self.accounts), f"key-{self.starts}"]
        self.process = self.testbed.start(f"{self.name}-{self.starts}", command, environment)
        self.process.wait_for("is up", 60)

    def settings(self, accounts):
        return {
            "name": self.name,
            "title": f"The {self.name.title()}",
            "issuer": self.issuer,
            "client_id": "farcall",
            "client_secret_file": str(self.secret),
            "domains": [{"campus": "example.edu", "lab": "lab.example"}[self.name]],
            "accounts": accounts,
        }


class Site:
    def __init__(self, testbed):
        self.campus, self.lab = Provider(testbed, "campus", CAMPUS), Provider(testbed, "lab", LAB)
        upstreams = [self.campus.settings("open"), self.lab.settings("known")]
        self.service = testbed.service("upstream", configuration=f"identity: {json.dumps({'upstreams': upstreams})}\n")
        for provider in (self.campus, self.lab):
            self.start(provider)

    def start(self, provider):
        provider.start(f"{self.service.origin()}/v2/web/upstream/{provider.name}/callback")


@pytest.fixture(scope="module")
def site(shared_testbed):
    return Site(shared_testbed)


@pytest.fixture
def browser(site, request):
    with Browser(site.service.testbed, request.node.name[:50]) as browser:
        yield browser


def sign_in_at(site, browser, provider, login, **changes):
    """From our sign-in page to the provider's pages and back."""
    browser.go(address(site.service, **changes))
    browser.wait_for("Sign in to go on.")
    browser.button(f"Sign in with The {provider.name.title()}")
    browser.wait_for("Sign-in")
    browser.type("input[name=login]", login)
    browser.type("input[name=password]", "whatever")
    browser.follow("button[type=submit]")
    browser.wait_for("Authorize")
    browser.follow("button[type=submit]")


def test_a_campus_login(site, browser):
    sign_in_at(site, browser, site.campus, "alice")
    browser.wait_for("You are alice@example.edu, Alice Liddell.")
    assert "The Campus" in browser.text()
    browser.button("Allow")
    browser.wait_for("Copy this code")
    shown = site.service.administer("user", "show", "alice@example.edu")
    assert shown["username"] == "alice@example.edu"
    # A domain in capitals is the same one.
    browser.go(address(site.service))
    browser.button("Not you? Sign in as somebody else")
    browser.go(f"http://127.0.0.1:{site.campus.port}/session/end")
    browser.wait_for("sign-out")
    browser.follow("button[value=yes]")
    sign_in_at(site, browser, site.campus, "bob")
    browser.wait_for("You are bob@example.edu")


@pytest.mark.parametrize(
    ("login", "why"),
    [
        ("mallory", "a domain that it may not vouch for"),
        ("trudy", "a domain that it may not vouch for"),
        ("nameless", "does not say the person's username"),
        ("alice2", "signs in in another way"),
        ("local", "signs in in another way"),
    ],
)
def test_nobody_elses_identity_is_ever_claimed(site, browser, login, why):
    """Of another provider's domain, of no provider's, without a name, of somebody who had the name before, of somebody
    with a password here."""
    known = {it["username"] for it in site.service.administer("user", "list")}
    for username, name in [("alice@example.edu", "Alice"), ("local@example.edu", "Local")]:
        if username not in known:
            site.service.add_person(username, PASSWORD, name)
    sign_in_at(site, browser, site.campus, login)
    browser.wait_for("You are not signed in")
    assert why in browser.text()
    assert "farcall_session" not in browser.cookies()


def test_only_people_who_were_added_and_as_whom_they_were_added(site, browser):
    sign_in_at(site, browser, site.lab, "root")
    browser.wait_for("not known here")
    added = site.service.administer("user", "add", "root@lab.example", "--name", "Root", "--no-password")
    browser.go(address(site.service))
    browser.button("Sign in with The Lab")
    browser.wait_for("You are root@lab.example")
    site.service.administer("user", "disable", added["username"])
    browser.go(address(site.service))
    # Disabled: the session has ended, and there is no way back in.
    browser.wait_for("Sign in to go on.")
    browser.button("Sign in with The Lab")
    browser.wait_for("disabled")


def test_new_keys_are_noticed_and_a_dead_provider_is_told(site, browser):
    sign_in_at(site, browser, site.campus, "added")
    browser.wait_for("You are added@example.edu")
    browser.button("Not you? Sign in as somebody else")
    # From now on it signs with another key.
    site.campus.process.stop()
    site.start(site.campus)
    sign_in_at(site, browser, site.campus, "added")
    browser.wait_for("You are added@example.edu")
    browser.button("Not you? Sign in as somebody else")
    browser.wait_for("Sign in to go on.")
    browser.go(f"http://127.0.0.1:{site.campus.port}/session/end")
    browser.wait_for("sign-out")
    browser.follow("button[value=yes]")
    browser.go(address(site.service))
    browser.button("Sign in with The Campus")
    browser.wait_for("Sign-in")
    state = browser.cookies()["farcall_upstream"]["value"].split(".")[0]
    site.campus.process.stop()
    try:
        browser.go(f"{site.service.origin()}/v2/web/upstream/campus/callback?code=abc&state={state}&iss={site.campus.issuer}")
        browser.wait_for("did not give a proper answer")
    finally:
        site.start(site.campus)


def test_an_answer_is_good_in_the_browser_that_asked_and_once(site, browser, request):
    origin = site.service.origin()
    browser.go(f"{origin}/v2/web/upstream/campus/callback?code=abc&state=def")
    browser.wait_for("does not belong to a sign-in that was begun in this window")
    # Begun here, answered to another browser, or by another provider, or with two states.
    for wrong in ["code=abc&state=wrong", "state=wrong", "code=abc&state=a&state=a", "error=access_denied&state=x"]:
        browser.go(address(site.service))
        browser.wait_for("Sign in to go on.")
        browser.button("Sign in with The Campus")
        browser.wait_for("Sign-in")
        browser.go(f"{origin}/v2/web/upstream/campus/callback?{wrong}")
        browser.wait_for("does not belong to a sign-in that was begun in this window")
    assert "farcall_session" not in browser.cookies()


def test_a_sign_in_of_now_is_a_sign_in_of_now(site, browser):
    """`prompt=login` goes through to the provider: being signed in there is not enough."""
    sign_in_at(site, browser, site.campus, "alice")
    browser.wait_for("You are alice@example.edu")
    browser.go(address(site.service, prompt="login"))
    browser.wait_for("asks that you sign in now")
    browser.button("Sign in with The Campus")
    browser.wait_for("Sign-in")
    browser.type("input[name=login]", "alice")
    browser.type("input[name=password]", "whatever")
    browser.follow("button[type=submit]")
    browser.wait_for("It may")
