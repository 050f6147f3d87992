"""People log in: the unmodified SDK and endpoint command line of either release, a person in a real browser.

The program prints an address; Chromium opens it, the person signs in, consents and reads a code off the page; the code is
typed into the program's terminal.
"""

import json
import re
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request

import environments
import pytest
from browser import Browser, allow, sign_in
from processes import until

ALICE, BOB = "alice@example.org", "bob@example.org"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def people(service):
    return {who: service.add_person(who, PASSWORD, name) for who, name in [(ALICE, "Alice Liddell"), (BOB, "Bob Dobbs")]}


@pytest.fixture
def person(service, people, release, tmp_path):
    """Somebody at a computer of their own, with the packages of one release."""
    return Person(service, release, tmp_path)


class Person:
    def __init__(self, service, release, directory):
        self.service = service
        self.testbed = service.testbed
        self.python = environments.python(f"sdk-{release}")
        self.home = directory
        self.environment = service.person_environment(self.python) | {
            "GLOBUS_COMPUTE_USER_DIR": str(directory),
            # The pseudo-terminal is narrow; an address must not be cut.
            "COLUMNS": "4000",
        }
        self.count = 0

    def terminal(self, *command):
        self.count += 1
        return self.testbed.terminal(command, self.environment, f"{self.home.name}-{self.count}")

    def endpoint(self, *arguments):
        return self.terminal(self.python.parent / "globus-compute-endpoint", *arguments)

    def script(self, text):
        return self.terminal(self.python, "-c", text)

    def tokens(self):
        """What the SDK has stored, by resource server."""
        rows = sqlite3.connect(self.home / "storage.db").execute("SELECT resource_server, token_data_json FROM token_storage")
        return {name: json.loads(data) for name, data in rows}

    def change_tokens(self, **members):
        database = sqlite3.connect(self.home / "storage.db")
        for name, data in self.tokens().items():
            text = json.dumps(data | members)
            database.execute("UPDATE token_storage SET token_data_json = ? WHERE resource_server = ?", (text, name))
        database.commit()


def address(terminal):
    """The address that the program asks to be opened."""
    return terminal.wait_for(r"(http\S+/v2/oauth2/authorize\?\S+)", 60)[1]


def log_in(terminal, browser, username=ALICE, password=PASSWORD):
    """Does all that a person does when a program asks to log in."""
    browser.go(address(terminal))
    sign_in(browser, username, password)
    terminal.type(allow(browser))


def finish(terminal, status=0, timeout=60):
    assert terminal.wait(timeout) == status, terminal.output()
    return terminal.output()


def status_of(service, token):
    """What the service says to a request with this token."""
    request = urllib.request.Request(f"{service.origin()}/v2/oauth2/userinfo", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def refresh(service, token):
    """Refreshes as a client would, and returns the answer."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"}
    request = urllib.request.Request(f"{service.origin()}/v2/oauth2/token", urllib.parse.urlencode(form).encode())
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_endpoints_commands(service, people, person):
    """`login`, `whoami`, `logout` of the endpoint's command line."""
    login = person.endpoint("login")
    with Browser(person.testbed, person.home.name) as browser:
        log_in(login, browser)
    finish(login)
    shown = finish(person.endpoint("whoami"))
    assert ALICE in shown and "Alice Liddell" in shown and people[ALICE] in shown
    assert people[ALICE] in finish(person.endpoint("whoami", "--linked-identities"))
    assert "Already logged in" in finish(person.endpoint("login"))
    stored = person.tokens()
    access = stored["auth.globus.org"]["access_token"]
    assert status_of(service, access) == 200
    finish(person.endpoint("logout"))
    assert status_of(service, access) == 401
    for data in stored.values():
        assert refresh(service, data["refresh_token"])[0] == 400
    finish(person.endpoint("whoami"), status=1)


CLIENT = """
from globus_compute_sdk import Client
client = Client()
print("registered", client.register_function(lambda: 1), flush=True)
"""


def test_the_sdk_logs_in_refreshes_and_notices_another_person(service, people, person):
    first = person.script(CLIENT)
    with Browser(person.testbed, person.home.name) as browser:
        log_in(first, browser)
    assert "registered" in finish(first)
    # The next run asks nobody.
    assert "authorize" not in finish(person.script(CLIENT))

    # Its tokens have ended: it refreshes, and keeps the refresh token that it is given in place of the old one.
    before = person.tokens()
    person.change_tokens(expires_at_seconds=int(time.time()) - 5)
    assert "authorize" not in finish(person.script(CLIENT))
    after = person.tokens()
    compute = "funcx_service"
    assert after[compute]["refresh_token"] != before[compute]["refresh_token"]
    assert after[compute]["access_token"] != before[compute]["access_token"]

    # The service does not know its access token any more: after a 401 it refreshes by itself.
    person.change_tokens(access_token="unknown")
    assert "authorize" not in finish(person.script(CLIENT))

    # Its answer was lost: it asks once more with what it has, and is not locked out.
    lost = person.tokens()[compute]["refresh_token"]
    status, answer = refresh(service, lost)
    assert status == 200
    person.change_tokens(expires_at_seconds=int(time.time()) - 5)
    assert "authorize" not in finish(person.script(CLIENT))
    assert person.tokens()[compute]["refresh_token"] == answer["refresh_token"]

    # Somebody else logs in over it: the SDK refuses.
    other = person.script(
        "from globus_compute_sdk.sdk.auth.globus_app import get_globus_app\n"
        "from globus_compute_sdk import Client\n"
        "client = Client()\nclient.app.login(force=True)\n"
    )
    with Browser(person.testbed, f"{person.home.name}-other") as browser:
        log_in(other, browser, BOB)
    assert "IdentityMismatchError" in finish(other, status=1)


def test_a_demanded_sign_in_and_a_used_up_code(service, people, person):
    """What a policy makes the SDK do: sign in once more, as a given identity; and a code that is typed twice."""
    demand = person.script(
        "from globus_compute_sdk import Client\n"
        "from globus_sdk.gare import GlobusAuthorizationParameters\n"
        "client = Client()\n"
        "print('first is done', flush=True)\n"
        f"asked = GlobusAuthorizationParameters(prompt='login', session_required_identities=['{people[ALICE]}'],\n"
        "    session_message='The endpoint wants to be sure')\n"
        "client.app.login(auth_params=asked)\n"
        "print('second is done', flush=True)\n"
        "client.app.login(force=True)\n"
    )
    with Browser(person.testbed, person.home.name) as browser:
        browser.go(address(demand))
        sign_in(browser, ALICE, PASSWORD)
        used = allow(browser)
        demand.type(used)
        demand.wait_for("first is done")
        seen = demand.output().count("/v2/oauth2/authorize?")
        until(lambda: demand.output().count("/v2/oauth2/authorize?") > seen - 1 and "prompt=login" in demand.output(), "it asks again")
        browser.go(re.findall(r"http\S+/v2/oauth2/authorize\?\S+", demand.output())[-1])
        # Although the browser is signed in.
        browser.wait_for("asks that you sign in as")
        assert "The endpoint wants to be sure" in browser.text()
        sign_in(browser, ALICE, PASSWORD)
        demand.type(allow(browser))
        demand.wait_for("second is done")
    until(lambda: demand.output().count("/v2/oauth2/authorize?") >= 3, "it asks for the third time")
    demand.type(used)
    shown = finish(demand, status=1)
    assert "AuthAPIError" in shown and " 400, " in shown
    # What the code had given was replaced by the second log-in, which is another grant and stays.
    assert status_of(service, person.tokens()["auth.globus.org"]["access_token"]) == 200


@pytest.mark.long
def test_a_reset_password_ends_everything(service, people, person):
    """An administrator gives somebody a new password: whoever knew the old one is out, everywhere."""
    name = f"carol.{person.home.name.replace('_', '-')[-20:]}@example.org".lower().replace("[", "").replace("]", "")
    service.add_person(name, PASSWORD, "Carol")
    login = person.endpoint("login")
    with Browser(person.testbed, person.home.name) as browser:
        log_in(login, browser, name)
        finish(login)
        stored = person.tokens()
        service.administer("user", "reset", name, stdin="another password\n")
        assert status_of(service, stored["auth.globus.org"]["access_token"]) == 401
        assert refresh(service, stored["auth.globus.org"]["refresh_token"])[0] == 400
        again = person.endpoint("login", "--force")
        browser.go(address(again))
        sign_in(browser, name, PASSWORD)
        browser.wait_for("is not right")
        sign_in(browser, name, "another password")
        again.type(allow(browser))
    finish(again)
