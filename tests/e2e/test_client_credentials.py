"""Programs that log in with an id and a secret: the commands and the SDK from PyPI, as they are."""

import json
import sqlite3
import subprocess
import uuid

import environments
import pytest
from rest import Rest
from testbed import binary

MANAGE_PROJECTS = "urn:globus:auth:scope:auth.globus.org:manage_projects"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "endpoints"


@pytest.fixture
def own(place):
    """A command of upstream's endpoint, run to its end in a directory of this test."""

    def run(service, release, *arguments, said="", identity=None):
        python = environments.python(f"sdk-{release}")
        environment = service.client_environment(python, identity)
        # The tokens of this test only.
        environment["GLOBUS_COMPUTE_USER_DIR"] = str(place)
        # Tables with room for whole ids.
        environment["COLUMNS"] = "300"
        return subprocess.run(
            [python.parent / "globus-compute-endpoint", "-c", place, *arguments],
            env=environment,
            input=said,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def farcall(service, *arguments):
    done = subprocess.run(
        [binary("farcall"), *arguments, "--data-dir", service.data, "--output", "json"],
        env=service.testbed.environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_whoami_and_logout(service, release, own):
    client_id, _ = service.identity
    told = own(service, release, "whoami")
    assert told.returncode == 0, told.stdout + told.stderr
    assert client_id in told.stdout and f"{client_id}@clients.auth.globus.org" in told.stdout
    linked = own(service, release, "whoami", "--linked-identities")
    assert linked.returncode == 0 and client_id in linked.stdout, linked.stdout + linked.stderr
    gone = own(service, release, "logout")
    assert "revoked" in service.process.output(), gone.stdout + gone.stderr
    again = own(service, release, "whoami")
    assert again.returncode == 0 and client_id in again.stdout, "it logs in anew by itself"


def test_another_identity_is_another(service, release, own):
    other = service.add_client("other")
    told = [own(service, release, "whoami", identity=identity).stdout for identity in (None, other)]
    assert service.identity[0] in told[0] and other[0] not in told[0]
    assert other[0] in told[1] and service.identity[0] not in told[1]


def test_a_wrong_secret_says_so(service, release, own):
    refused = own(service, release, "whoami", identity=(service.identity[0], "wrong"))
    assert refused.returncode != 0
    assert "invalid_client" in refused.stdout + refused.stderr or "401" in refused.stdout + refused.stderr


@pytest.mark.sqlite("it changes the database file")
def test_tokens_that_ended_are_replaced(testbed, release):
    """Revoked while the SDK runs, and run out while it did not: it gets new ones and goes on."""
    service = testbed.service()
    sdk = service.sdk(release)
    script = sdk.start(
        """
        import pathlib, sys, time
        client = Client()
        function = client.register_function(lambda: 1)
        report(function)
        while not pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.05)
        report(client.get_function(function)["function_uuid"] if hasattr(client, "get_function") else function)
        report(client.register_function(lambda: 2))
        """,
        testbed.directory / "ended",
    )
    function = script.wait_for_report(1)
    client_id = service.identity[0]
    farcall(service, "client", "disable", client_id)
    farcall(service, "client", "enable", client_id)
    (testbed.directory / "ended").touch()
    reports = script.finish()
    assert reports[1] == function and uuid.UUID(reports[2])

    service.stop()
    with sqlite3.connect(service.data / "farcall.db") as database:
        ended = database.execute("UPDATE tokens SET expires_us = issued_us").rowcount
    assert ended > 0
    service.start()
    assert uuid.UUID(sdk.run("report(Client().register_function(lambda: 3))")[0])


def test_configure_makes_a_project_and_a_policy(service, release, own, place):
    client_id, _ = service.identity
    contact = ["--contact-email", "ops@example.edu"] if release == "4.19.0" else []
    policy = ["--auth-policy-display-name", f"Lab {release}", "--auth-policy-description", "who may come in"]
    domains = ["--allowed-domains", "example.edu,*.example.org", "--excluded-domains", "old.example.edu"]
    wizard = "\n".join([f"Project {release}", "ops@example.edu", client_id, "", "y"]) + "\n"
    listed = projects(service)
    # With projects there, it asks for one first; an empty line makes a new one.
    answers = ("\n" if listed else "") + wizard
    made = own(
        service, release, "configure", "policed", *contact, *policy, *domains, "--auth-timeout", "3600", said=answers
    )
    assert made.returncode == 0, made.stdout + made.stderr
    project = next(it for it in projects(service) if it["display_name"] == f"Project {release}")
    assert project["admin_ids"] == [client_id] and project["contact_email"] == "ops@example.edu"

    [found] = [it for it in policies(service) if it["display_name"] == f"Lab {release}"]
    assert found["project_id"] == project["id"]
    assert found["domain_constraints_include"] == ["example.edu", "*.example.org"]
    assert found["domain_constraints_exclude"] == ["old.example.edu"]
    assert found["authentication_assurance_timeout"] == 3600
    written = "".join(path.read_text() for path in (place / "policed").glob("*.yaml"))
    assert found["id"] in written

    # In a project that is named, without questions.
    named = own(
        service, release, "configure", "second", *contact,
        "--auth-policy-project-id", project["id"], "--auth-policy-display-name", f"Second {release}",
    )  # fmt: skip
    assert named.returncode == 0, named.stdout + named.stderr
    assert any(it["display_name"] == f"Second {release}" for it in policies(service))

    # Chosen from the list.
    number = [it["id"] for it in projects(service)].index(project["id"]) + 1
    chosen = own(
        service, release, "configure", "third", *contact,
        "--auth-policy-display-name", f"Third {release}", said=f"{number}\n",
    )  # fmt: skip
    assert chosen.returncode == 0, chosen.stdout + chosen.stderr
    assert any(it["display_name"] == f"Third {release}" and it["project_id"] == project["id"] for it in policies(service))

    # In a project of somebody else: refused, in words.
    stranger = service.add_client("stranger")
    refused = own(
        service, release, "configure", "fourth", *contact,
        "--auth-policy-project-id", project["id"], identity=stranger,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "no such project" in refused.stdout + refused.stderr


def auth(service):
    return Rest(service.origin(), *service.identity, scope=MANAGE_PROJECTS)


def projects(service):
    return auth(service).get("/v2/api/projects")["projects"]


def policies(service):
    return auth(service).get("/v2/api/policies")["policies"]
