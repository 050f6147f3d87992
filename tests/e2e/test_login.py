"""Logins at our endpoint's command line: link and pasted code, the token store shared with the stock packages, renewal,
`whoami`.

The identity service is a fake, except in the last test, so that the tests can control and see each step."""

import json
import re
import sqlite3
import stat
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import environments
from processes import marked, until
from sign_in import sign_in
from testbed import binary

ME = "11111111-1111-4111-8111-111111111111"
LINKED = "22222222-2222-4222-8222-222222222222"
ENDPOINT = "7b4a1a3e-3f55-4c7e-9d1a-0f4f0b6f8c11"


@pytest.fixture
def release():
    return "3.8.0"


class Person:
    """Somebody at a terminal, with a home of their own, and the stand-in for a service."""

    def __init__(self, testbed, lifetime=172800):
        self.testbed = testbed
        self.stock = environments.python("sdk-3.8.0")
        script = Path(__file__).resolve().parent.parent / "clients" / "fake_identity_service.py"
        self.service = testbed.start("stand-in", [self.stock, script, str(lifetime)], testbed.environment(self.stock))
        self.port = self.service.wait_for(r"listening on (\d+)")[1]
        self.base = testbed.directory / "base"

    def environment(self, **extra):
        return self.testbed.environment(
            self.stock,
            GLOBUS_SDK_ENVIRONMENT="local",
            GLOBUS_SDK_SERVICE_URL_AUTH=f"http://localhost:{self.port}/",
            GLOBUS_COMPUTE_USER_DIR=self.base,
            COLUMNS=200,
            **extra,
        )

    def ours(self):
        # The stock packages find localhost:5000 through `http_proxy`; ours is told the port.
        return self.environment(FARCALL_SERVICE_URL=f"http://localhost:{self.port}/")

    def run(self, *arguments, upstream=False, **extra):
        program = self.stock.parent / "globus-compute-endpoint" if upstream else binary("globus-compute-endpoint")
        environment = self.environment(http_proxy=f"http://127.0.0.1:{self.port}") if upstream else self.ours()
        done = subprocess.run(
            [str(program), *arguments],
            env=environment | extra,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done

    def type(self, *arguments, upstream=False):
        program = self.stock.parent / "globus-compute-endpoint" if upstream else binary("globus-compute-endpoint")
        environment = self.environment(http_proxy=f"http://127.0.0.1:{self.port}") if upstream else self.ours()
        return self.testbed.terminal([program, *arguments], environment)

    def log_in(self, terminal):
        """Opens the link and pastes the code."""
        link = terminal.read(r"Please authenticate with Globus here:\n-+\n(http\S+)\n-+\n")[1]
        terminal.read(r"Enter the resulting Authorization Code here: ")
        parameters = urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)
        assert parameters["access_type"] == ["offline"] and parameters["code_challenge_method"] == ["S256"]
        terminal.type(f"good-{parameters['code_challenge'][0]}")
        return parameters

    def asked(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/asked", timeout=10) as answer:
            return json.load(answer)

    def namespaces(self):
        with sqlite3.connect(self.base / "storage.db") as store:
            return {row for row in store.execute("SELECT namespace, resource_server FROM token_storage")}


@pytest.fixture
def person(testbed):
    return Person(testbed)


def test_the_first_start_logs_in(person):
    assert person.run("configure", "ep").returncode == 0
    first = person.type("start", "ep")
    parameters = person.log_in(first)
    assert parameters["client_id"] == ["4cf29807-cf21-49ec-9443-ff9a3fb9f81c"]
    # The stand-in for a service has no broker, and a start waits for one.
    first.read(f"Starting endpoint; registered ID: {ENDPOINT}")
    first.interrupt()
    first.finish()
    # The tokens lie where the stock packages look for them, for nobody else.
    assert person.namespaces() == {("user/local", "auth.globus.org"), ("user/local", "funcx_service")}
    assert stat.S_IMODE((person.base / "storage.db").stat().st_mode) == 0o600
    # The second start asks nobody.
    again = person.type("start", "ep")
    again.read(f"Starting endpoint; registered ID: {ENDPOINT}")
    again.interrupt()
    assert "Please authenticate" not in again.finish()[1]
    waiting = lambda: [line for line in marked(person.testbed.mark).values() if "_run" in line]  # noqa: E731
    until(lambda: not waiting(), "what waits in the background ends with its start", 20)
    assert [line for line in person.asked() if "oauth2/token" in line] == ["POST /v2/oauth2/token authorization_code"]


def test_whoami_of_either_agrees(person):
    assert "Please log in again" in person.run("whoami").stderr
    login = person.type("login")
    person.log_in(login)
    assert login.finish()[0] == 0
    assert "Already logged in. Use --force to run login flow anyway" in person.run("login").stderr
    ours, theirs = person.run("whoami"), person.run("whoami", upstream=True)
    assert ours.returncode == theirs.returncode == 0, theirs.stderr
    assert ours.stdout.split() == theirs.stdout.split()
    assert ME in ours.stdout and "ada@example.org" in ours.stdout
    linked = person.run("whoami", "--linked-identities")
    assert LINKED in linked.stdout and ME in linked.stdout
    assert linked.stdout.split() == person.run("whoami", "--linked-identities", upstream=True).stdout.split()
    told = json.loads(person.run("whoami", "--output", "json").stdout)
    assert told == [{"username": "ada@example.org", "name": "Ada L.", "id": ME, "email": "ada@mail.example.org"}]
    out = person.run("logout")
    assert "Logout succeeded and all cached credentials were revoked" in out.stderr
    assert person.asked().count("POST /v2/oauth2/token/revoke") == 4
    assert person.run("whoami", upstream=True).returncode == 1


def test_a_login_of_upstreams_is_ours(person):
    login = person.type("login", upstream=True)
    person.log_in(login)
    status, screen = login.finish()
    assert status == 0, screen
    ours = person.run("whoami")
    assert ours.returncode == 0 and ME in ours.stdout, ours.stderr


def test_tokens_are_renewed(testbed):
    # They count as expired at once.
    person = Person(testbed, lifetime=1)
    login = person.type("login")
    person.log_in(login)
    assert login.finish()[0] == 0
    for _ in range(2):
        assert ME in person.run("whoami").stdout
    renewals = [line for line in person.asked() if line.endswith("refresh_token")]
    assert len(renewals) == 2, "each time by the newest refresh token"


def test_a_wrong_code_and_no_answer(person):
    wrong = person.type("login")
    wrong.read("Authorization Code here: ")
    wrong.type("nonsense")
    status, screen = wrong.finish()
    assert status == 77 and "An Auth API error occurred" in screen and "invalid_grant" in screen, screen
    nobody = person.run("login")
    assert nobody.returncode == 1 and nobody.stderr.strip().endswith("Aborted!")
    person.run("configure", "ep")
    started = person.run("start", "ep")
    assert started.returncode == 77 and "globus-compute-endpoint login" in started.stderr


def test_the_environment_goes_before_the_login(person):
    login = person.type("login")
    person.log_in(login)
    assert login.finish()[0] == 0
    credentials = {"GLOBUS_COMPUTE_CLIENT_ID": LINKED, "GLOBUS_COMPUTE_CLIENT_SECRET": "secret"}
    told = person.run("login", **credentials)
    assert f"the client identity {LINKED}, from GLOBUS_COMPUTE_CLIENT_ID in the environment" in told.stderr
    both = person.run("whoami", GLOBUS_COMPUTE_CLIENT_SECRET="secret")
    assert "Both GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET must be set" in both.stderr


def test_a_token_goes_to_no_other_service(testbed, person):
    login = person.type("login")
    person.log_in(login)
    assert login.finish()[0] == 0
    other = Person(testbed)
    assert other.base == person.base and other.port != person.port
    refused = other.run("whoami")
    assert refused.returncode == 1 and "Please log in again" in refused.stderr
    assert not re.search("userinfo", " ".join(other.asked()))


def evaluated(person):
    """The environment of a shell that has evaluated `farcall env` for this person's service, and nothing else."""
    program = 'eval "$("$@")" && exec env -0'
    command = ["sh", "-c", program, "sh", str(binary("farcall")), "env", f"http://localhost:{person.port}"]
    done = subprocess.run(command, env=person.testbed.environment(person.stock), capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line) | {"COLUMNS": "200"}


def test_one_login_serves_sdk_and_endpoint_and_no_other_service(testbed, person):
    """Whichever shell each is started from; `whoami` says who the endpoint is."""
    ours, stock = binary("globus-compute-endpoint"), person.stock.parent / "globus-compute-endpoint"
    bare, shell = testbed.environment(person.stock, COLUMNS=200), evaluated(person)

    def run(program, environment, *arguments):
        return subprocess.run(
            [str(program), *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )

    login = testbed.terminal([stock, "login"], shell)
    person.log_in(login)
    assert login.finish()[0] == 0
    url = f"http://localhost:{person.port}"
    for environment in (bare, shell, bare | {"FARCALL_SERVICE_URL": url}):
        if "FARCALL_SERVICE_URL" in environment:
            told = run(ours, environment, "whoami")
            assert told.returncode == 0 and ME in told.stdout, told.stderr
        name = f"ep{len(environment)}"
        assert run(ours, environment, "configure", name, "--service-url", url).returncode == 0
        # As `start` would find it; there is no broker to start at.
        looked = run(ours, environment, "doctor", name)
        assert re.search(f"ok   identity .*{ME}.*from the login stored in .*/.farcall/localhost_{person.port}/", looked.stdout), looked.stdout
    assert len([line for line in person.asked() if line.endswith("authorization_code")]) == 1, "one login"

    other = Person(testbed)
    for program in (stock, ours):
        assert run(program, evaluated(other), "whoami").returncode == 1
    assert run(ours, bare | {"FARCALL_SERVICE_URL": f"http://localhost:{other.port}"}, "whoami").returncode == 1
    assert not re.search("userinfo|refresh_token", " ".join(other.asked()))


def test_the_whole_way_with_our_service(testbed):
    """A person of our own service logs in by its pages, runs an endpoint, and is told whose endpoint another's is."""
    service = testbed.service()
    for name in ("ada", "bob"):
        added = subprocess.run(
            [
                *(binary("farcall"), "user", "add", f"{name}@example.org", "--data-dir", service.data),
                *("--name", name, "--email", f"{name}@mail.example.org"),
            ],
            input="correct horse battery staple\n",
            env=testbed.environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert added.returncode == 0, added.stderr
    stock = environments.python("sdk-3.8.0")

    def environment(who):
        return testbed.environment(
            stock,
            GLOBUS_SDK_ENVIRONMENT="local",
            GLOBUS_SDK_SERVICE_URL_AUTH=f"http://localhost:{service.http_port}/",
            FARCALL_SERVICE_URL=f"http://localhost:{service.http_port}/",
            GLOBUS_COMPUTE_USER_DIR=testbed.directory / who,
            COLUMNS=200,
        )

    def run(who, *words, program=None):
        extra = {"http_proxy": service.origin()} if program else {}
        return subprocess.run(
            [str(program or binary("globus-compute-endpoint")), *words],
            env=environment(who) | extra,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def log_in(terminal, who):
        link = terminal.read(r"here:\n-+\n(http\S+)\n-+\n")[1]
        terminal.read("Authorization Code here: ")
        terminal.type(sign_in(link, f"{who}@example.org", "correct horse battery staple"))
        status, screen = terminal.finish()
        assert status == 0, screen
        return screen

    run("ada", "configure", "ep")
    program = binary("globus-compute-endpoint")
    screen = log_in(testbed.terminal([program, "start", "ep"], environment("ada")), "ada")
    registered = re.search(r"registered ID: (\S+)", screen)[1]
    try:
        upstream = stock.parent / "globus-compute-endpoint"
        ours, theirs = run("ada", "whoami"), run("ada", "whoami", program=upstream)
        assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
        assert ours.stdout.split() == theirs.stdout.split() and "ada" in ours.stdout
    finally:
        assert run("ada", "stop", "ep").returncode == 0
    # The directory in other hands: the refusal says whose login was used.
    log_in(testbed.terminal([program, "login"], environment("bob")), "bob")
    run("bob", "configure", "ep")
    (testbed.directory / "bob" / "ep" / "endpoint.json").write_text(json.dumps({"endpoint_id": registered}))
    refused = run("bob", "start", "ep")
    assert refused.returncode in (1, 69), refused.stderr
    assert re.search(r"The identity in use is the identity \S+, from the login stored in \S+storage\.db", refused.stderr), refused.stderr
