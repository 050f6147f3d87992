"""The pages for signing in, in a browser: with a keyboard, a screen reader, without scripts, and under attack."""

import os
import urllib.error
import urllib.parse
import urllib.request

import environments
import pytest
from browser import Browser, allow, sign_in
from testbed import ROOT

ALICE, PASSWORD = "alice@example.org", "correct horse battery"
NATIVE = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
COMPUTE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
# Set it to look at the pages: pictures of them are put there.
LOOK = os.environ.get("FARCALL_TEST_LOOK")


@pytest.fixture(scope="module")
def site(shared_testbed):
    service = shared_testbed.service("pages", configuration="identity:\n  site_name: Farcall at Example University\n")
    service.add_person(ALICE, PASSWORD)
    return service


@pytest.fixture
def browser(site, request):
    with Browser(site.testbed, request.node.name.replace("/", "-")[:60], **getattr(request, "param", {})) as browser:
        yield browser


def address(site, **changes):
    origin = site.origin()
    query = {
        "client_id": NATIVE,
        "redirect_uri": f"{origin}/v2/web/auth-code",
        "scope": f"openid {COMPUTE}",
        "state": "_default",
        "response_type": "code",
        "access_type": "offline",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        "prefill_named_grant": "notebook on laptop",
    }
    query |= changes
    return f"{origin}/v2/oauth2/authorize?" + urllib.parse.urlencode({k: v for k, v in query.items() if v is not None})


def look(browser, name):
    if LOOK:
        os.makedirs(LOOK, exist_ok=True)
        browser.screenshot(f"{LOOK}/{name}.png")


def accessible(browser):
    """No finding of axe, the checker that browsers' own tools use: contrast, labels, headings, landmarks, language."""
    axe = (environments.node_modules(ROOT / "tests" / "upstream") / "axe-core" / "axe.min.js").read_text()
    found = browser.script(
        axe + "; return axe.run().then(found => found.violations.map(it => [it.id, it.nodes.map(node => node.html)]));"
    )
    assert found == []


@pytest.mark.parametrize("browser", [{}, {"dark": True}], ids=["light", "dark"], indirect=True)
def test_every_page_is_accessible(site, browser):
    mode = browser.script("return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
    browser.go(address(site, session_message="The endpoint wants to be sure"))
    accessible(browser)
    look(browser, f"{mode}-sign-in")
    sign_in(browser, ALICE, "wrong")
    browser.wait_for("is not right")
    assert browser.spoken("#trouble")[0] == "alert"
    accessible(browser)
    look(browser, f"{mode}-wrong")
    sign_in(browser, ALICE, PASSWORD)
    browser.wait_for("It may")
    accessible(browser)
    look(browser, f"{mode}-consent")
    browser.button("Allow")
    browser.wait_for("Copy this code")
    accessible(browser)
    look(browser, f"{mode}-code")
    for page, words in [
        (f"{site.origin()}/v2/web/logout", "You are signed in as"),
        (address(site, client_id=None), "This request cannot go on"),
        (f"{site.origin()}/v2/web/auth-code?error=access_denied", "Not allowed"),
    ]:
        browser.go(page)
        browser.wait_for(words)
        accessible(browser)
        look(browser, f"{mode}-{words.replace(' ', '-').lower()}")


@pytest.mark.parametrize("browser", [{"scripts": False}], ids=["no scripts"], indirect=True)
def test_all_of_it_with_a_keyboard_and_without_scripts(site, browser):
    browser.go("data:text/html,<body><p id=p>static</p><script>p.textContent='scripted'</script>")
    assert browser.text("#p") == "static", "this browser was to run no scripts"
    browser.go(address(site))
    browser.wait_for("Sign in to go on.")
    assert browser.spoken("#username") == ("textbox", "Username")
    assert browser.spoken("#password")[1] == "Password"
    browser.press("tab")
    assert browser.focused() == "username"
    browser.press(ALICE, "tab")
    assert browser.focused() == "password"
    browser.press(PASSWORD, "tab")
    assert browser.focused() == "Sign in"
    browser.press("enter")
    browser.wait_for("It may")
    order = []
    for _ in range(3):
        browser.press("tab")
        order.append(browser.focused())
    assert order == ["Not you? Sign in as somebody else", "Allow", "Do not allow"]
    browser.find("h1")
    browser.press("tab")
    browser.go(browser.url())
    browser.wait_for("It may")
    for _ in range(2):
        browser.press("tab")
    assert browser.focused() == "Allow"
    browser.press("enter")
    browser.wait_for("Copy this code")
    assert len(browser.text("#code")) == 43
    assert not browser.has("script")


def test_what_a_consent_names(site, browser):
    """Identity, linked identities, groups; the application, and each scope in plain words."""
    site.add_person("dora@example.org", PASSWORD, "Dora Dean")
    site.add_person("dora.dean@example.edu", PASSWORD, "Dora Dean")
    site.administer("user", "link", "dora.dean@example.edu", "dora@example.org")
    site.administer("group", "add", "telescope")
    site.administer("group", "members", "telescope", "--add", "dora@example.org")
    browser.go(address(site, scope=f"openid email urn:globus:auth:scope:auth.globus.org:manage_projects {COMPUTE}"))
    sign_in(browser, "dora.dean@example.edu", PASSWORD)
    browser.wait_for("It may")
    text = browser.text()
    for words in [
        "Globus Compute SDK",
        "notebook on laptop",
        "You are dora@example.org",
        "You signed in as dora.dean@example.edu",
        "you are also dora.dean@example.edu",
        "which groups you are in: telescope",
        "run functions in your name",
        "see and change your projects",
        "see your e-mail address",
        "until you log out",
    ]:
        assert words in text, text
    assert "https://auth.globus.org" not in text and "urn:" not in text
    look(browser, "consent-of-many")
    browser.button("Do not allow")
    browser.wait_for("You did not allow it")
    # And as somebody else.
    browser.go(address(site))
    browser.wait_for("You are dora@example.org")
    browser.button("Not you? Sign in as somebody else")
    sign_in(browser, ALICE, PASSWORD)
    browser.wait_for(f"You are {ALICE}")


def test_a_text_from_outside_is_never_markup(site, browser):
    nasty = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'"
    browser.go(address(site, prefill_named_grant=nasty, session_message=nasty, login_hint=nasty, state=nasty))
    browser.wait_for("Sign in to go on.")
    assert "<script>" in browser.text() and "owned" not in browser.title()
    sign_in(browser, ALICE, PASSWORD)
    browser.wait_for("It may")
    assert not browser.has("main img") and not browser.has("main script")
    browser.button("Allow")
    browser.wait_for("Copy this code")
    assert urllib.parse.parse_qs(urllib.parse.urlparse(browser.url()).query)["state"] == [nasty]


def test_whoever_guesses_is_told_to_wait(site, browser):
    """An account that does not exist is answered like one that does, down to the wait."""
    site.add_person("victim@example.org", PASSWORD, "Victor")
    told = {}
    for username in ["victim@example.org", "nobody@example.org"]:
        browser.go(address(site))
        for _ in range(5):
            sign_in(browser, username, "guess")
            browser.wait_for("is not right")
        waited = browser.text("main").replace(username, "")
        # Each further one makes the next wait twice as long, so in the end the wait is longer than we are slow.
        for _ in range(12):
            sign_in(browser, username, "guess")
            if "Wait" in browser.text():
                break
        told[username] = (waited, browser.text("#trouble").split("Wait")[0])
    assert told["victim@example.org"] == told["nobody@example.org"]
    look(browser, "wait")


def ask(url, **headers):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=30)
    except urllib.error.HTTPError as error:
        return error


def test_what_goes_with_every_page(site):
    for url in [
        address(site),
        address(site, client_id=None),
        f"{site.origin()}/v2/web/auth-code?code={'a' * 43}",
        f"{site.origin()}/v2/web/logout",
        f"{site.origin()}/v2/web/upstream/none",
    ]:
        answer = ask(url)
        headers = answer.headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'" and policy["base-uri"] == "'none'"
        assert policy["style-src"] == "'self'" and policy["form-action"] == "'self'" and "script-src" not in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        body = answer.read().decode()
        assert "<html lang=\"en\">" in body and "http" not in body.split("<main>")[0]
        for cookie in headers.get_all("set-cookie") or []:
            assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/;" in cookie
    assert ask(address(site), Host="evil.example").status == 421
    assert ask(address(site), Host=f"localhost:{site.http_port + 1}").status in (200, 400)


def test_another_site_frames_nothing_and_posts_nothing(site, browser, tmp_path):
    """A malicious page: it can't show ours in a frame, nor send our forms with this browser's cookies."""
    browser.go(address(site))
    sign_in(browser, ALICE, PASSWORD)
    code = allow(browser)
    assert len(code) == 43
    consent = address(site).replace("/v2/oauth2/authorize", "/v2/web/consent")
    page = tmp_path / "evil.html"
    page.write_text(
        f"<iframe id=f src='{address(site).replace('&', '&amp;')}'></iframe>"
        f"<form id=form method=post action='{consent.replace('&', '&amp;')}'><input name=answer value=allow>"
        "<button>Win a prize</button></form>"
    )
    browser.go(f"file://{page}")
    assert not browser.script("try { return !!document.getElementById('f').contentDocument.querySelector('main') } catch { return false }")
    browser.button("Win a prize")
    browser.wait_for("This form cannot be used")
    assert "code=" not in browser.url()
