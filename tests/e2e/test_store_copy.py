"""`farcall store copy` from SQLite to PostgreSQL and back: what waits, runs and has ended goes on there."""

import json
import re
import subprocess

import pytest
from large_tasks import COLLECT, LARGE, WAITING
from postgres import Postgres
from processes import until
from testbed import binary

pytestmark = pytest.mark.sqlite("it has databases of its own")

HELD = """
import sys

def held(started, end):
    import os, time
    open(started, "w").close()
    while not os.path.exists(end):
        time.sleep(0.05)
    return "held"

client = Client()
report(client.run(*sys.argv[2:], endpoint_id=sys.argv[1], function_id=client.register_function(held)))
"""


@pytest.fixture(scope="module")
def postgres():
    with Postgres("store-copy") as server:
        yield server


def farcall(service, command):
    command = [binary("farcall"), *command.split(), "--data-dir", service.data]
    return subprocess.run(command, env=service.testbed.environment(), capture_output=True, text=True, timeout=120)


def copy(service, to):
    return farcall(service, f"store copy --to {to}")


def rows(printed):
    """How many rows each table had."""
    return {name: int(count) for name, count in re.findall(r"\|\s+(\w+)\s+\|\s+(\d+)\s+\|", printed)}


def test_everything_goes_on_in_the_other_database(testbed, postgres):
    url = postgres.create("both_ways")
    service = testbed.service()
    service.add_person("alice@example.org", "correct horse battery")
    sdk = service.sdk("4.19.0")
    busy, idle = testbed.endpoint(service, "busy"), testbed.endpoint(service, "idle")
    idle.stop()
    ended = sdk.run(WAITING, busy.id, LARGE)[0]
    sdk.run(COLLECT, *ended)
    waiting = sdk.run(WAITING, idle.id, LARGE)[0]
    held = []

    def hold(name):
        started, end = testbed.directory / f"{name}.started", testbed.directory / f"{name}.end"
        held.append((sdk.run(HELD, busy.id, started, end)[0], end))
        until(started.exists, "the task runs")

    hold("first")
    running = copy(service, url)
    assert running.returncode == 1 and "is in use by another farcall: stop it first" in running.stderr, running.stderr

    # The endpoint with a running task stays, as it does while a service restarts.
    service.stop()
    done = copy(service, url)
    assert done.returncode == 0, done.stderr
    counts = rows(done.stdout)
    assert counts["tasks"] == 41 and counts["assignments"] == 21 and counts["results"] == 20, done.stdout
    assert counts["passwords"] == 1 and counts["endpoints"] == 2
    configuration = service.data / "farcall.yaml"
    assert f"The service still uses the database {service.data}/farcall.db." in done.stdout
    assert f"set url in the section store of {configuration}" in done.stdout
    again = copy(service, url)
    assert again.returncode == 1 and "is not empty" in again.stderr and "nothing is overwritten" in again.stderr

    configuration.write_text(f"store: {{url: {url}}}\n")
    (service.data / "farcall.db").rename(testbed.directory / "before.db")
    service.start()
    users = service.administer("user", "list")
    assert "alice@example.org" in [user["username"] for user in users]
    hold("second")
    idle.start()
    assert sdk.run(COLLECT, *ended, *waiting) == [[number, LARGE] for number in range(20)] * 2
    idle.stop()
    waiting = sdk.run(WAITING, idle.id, LARGE)[0]
    held[0][1].touch()
    assert sdk.run(COLLECT, held[0][0]) == ["held"]

    service.stop()
    # Without the URL, an old farcall.db beside it would be taken for the data.
    configuration.write_text("")
    (testbed.directory / "before.db").rename(service.data / "farcall.db")
    elsewhere = f"keeps its data in PostgreSQL (127.0.0.1:{postgres.port}), and neither store.url in farcall.yaml nor FARCALL_STORE__URL is set"
    for command in ("serve", "config check", "user list", f"backup {testbed.directory}/backup", "store copy --to sqlite"):
        refused = farcall(service, command)
        assert refused.returncode == 1 and elsewhere in refused.stderr, (command, refused)
    (service.data / "farcall.db").unlink()
    configuration.write_text(f"store: {{url: {url}}}\n")

    done = copy(service, "sqlite")
    assert done.returncode == 0, done.stderr
    assert f"remove the line url from the section store of {configuration}" in done.stdout
    back = rows(done.stdout)
    assert back["tasks"] == 62 and back["passwords"] == 1 and set(back) == set(counts), done.stdout
    assert (service.data / "farcall.db").stat().st_mode & 0o777 == 0o600
    again = copy(service, "sqlite")
    assert again.returncode == 1 and f"{service.data}/farcall.db is not empty" in again.stderr, again.stderr
    configuration.write_text("")
    postgres.execute("DROP DATABASE both_ways")
    again = copy(service, "sqlite")
    assert again.returncode == 1 and "is in SQLite already" in again.stderr, again.stderr

    service.start()
    held[1][1].touch()
    idle.start()
    assert sdk.run(COLLECT, held[1][0], *waiting) == ["held", *([number, LARGE] for number in range(20))]


def test_what_cannot_be_copied_is_said(testbed, postgres):
    service = testbed.service()
    service.stop()
    for to, words in [
        ("mysql://root@localhost/farcall", "it has to look like postgres://USER@HOST:PORT/DATABASE"),
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        (postgres.url("template1").replace(str(postgres.port), "1"), "cannot be reached"),
    ]:
        done = copy(service, to)
        assert done.returncode != 0 and words in done.stderr, done.stderr
    others = postgres.create("others")
    postgres.execute("CREATE TABLE theirs (id bigint)", "others")
    done = copy(service, others)
    assert done.returncode == 1 and "has tables that are not farcall's (theirs for one)" in done.stderr, done.stderr
    assert postgres.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "others") == [["1"]]

    # Text with a character that PostgreSQL does not know.
    change = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()"
    nul = "UPDATE native_apps SET name = 'a' || char(0)"
    subprocess.run(["python3", "-c", change, service.data / "farcall.db", nul], check=True)
    empty = postgres.create("empty")
    done = copy(service, empty)
    assert done.returncode == 1 and "the column native_apps.name contains the character NUL" in done.stderr, done.stderr
    assert postgres.execute("SELECT count(*) FROM identities", "empty") == [["0"]]
    assert json.loads(postgres.execute("SELECT json_agg(name) FROM native_apps", "empty")[0][0]) == ["Globus Compute SDK"]
