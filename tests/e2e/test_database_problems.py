"""What is wrong with a PostgreSQL database is named by `config check`, `doctor` and the start, each with what to do; and the
password of its URL is shown nowhere."""

import contextlib
import subprocess
import time
from pathlib import Path

import pytest
from postgres import Postgres, Session
from processes import free_ports, until
from testbed import binary

PASSWORD = "correct-horse"
CHECKS = ("config check", "doctor", "serve")


@pytest.fixture(scope="module")
def server():
    # With fsync: its absence would be a problem of its own.
    with Postgres("problems", durable=True) as server:
        server.execute(f"CREATE ROLE farcall LOGIN PASSWORD '{PASSWORD}'")
        # Who has no password is let in as before.
        access = server.data / "pg_hba.conf"
        access.write_text("host all farcall 127.0.0.1/32 scram-sha-256\n" + access.read_text())
        server.configure()
        yield server


@pytest.fixture
def run(testbed):
    """Runs a command on a data directory of the test's own, whose configuration names a database."""
    data = testbed.directory / "data"

    def run(url, command, **variables):
        data.mkdir(mode=0o700, exist_ok=True)
        (data / "farcall.yaml").write_text(f"store: {{url: '{url}'}}\nhttp: {{listen: '127.0.0.1:0'}}\namqp: {{listen: '127.0.0.1:0'}}\n")
        done = subprocess.run(
            [*(binary("farcall"), *command.split()), "--data-dir", data],
            env=testbed.environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert PASSWORD not in said, said
        return done.returncode, said

    return run


def refused(run, url, problem, remedy, checks=CHECKS):
    """Each of the commands fails, names the problem, and says what to do."""
    for command in checks:
        status, said = run(url, command)
        assert status == 1 and problem in said, f"{command}: {said}"
        assert remedy in said.split(problem, 1)[1], f"{command}: {said}"


def test_unreachable(run):
    (port,) = free_ports(1)
    url = f"postgres://farcall:{PASSWORD}@127.0.0.1:{port}/farcall"
    refused(run, url, f"the database at 127.0.0.1:{port} cannot be reached: ", "-> start the database server, or correct store.url")


def test_a_standby_takes_no_writes(run, server):
    server.create("recovery")
    with server.standby("behind", synchronous=False) as standby:
        problem = f"the database server at 127.0.0.1:{standby.port} is in recovery and takes no writes"
        refused(run, standby.url("recovery"), problem, "or name the primary in store.url")
        # With both named it takes the one that takes writes.
        assert run(standby.url("recovery", server), "config check")[0] == 0


@pytest.mark.parametrize("limited", ["role", "database", "server"])
def test_out_of_connections(run, server, limited):
    url = server.create(f"few_{limited}")
    user, left = "postgres", None
    with contextlib.ExitStack() as stack:
        if limited == "role":
            # A superuser has no limit.
            server.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 1; GRANT ALL ON SCHEMA public TO few", f"few_{limited}")
            url = url.replace("postgres@", "few@")
            left = 1
        elif limited == "database":
            server.execute(f"ALTER DATABASE few_{limited} CONNECTION LIMIT 4")
            server.execute("CREATE ROLE fewer LOGIN; GRANT ALL ON SCHEMA public TO fewer", f"few_{limited}")
            url = url.replace("postgres@", "fewer@")
            left = 4
        else:
            for _ in range(200 - 3):
                stack.callback(Session(server).close)
            url = url.replace("postgres@", "farcall:" + PASSWORD + "@")
        remedy = "-> close other programs' connections, or raise max_connections in postgresql.conf"
        if left is None:
            refused(run, url, f"the database server at 127.0.0.1:{server.port} has no connection left", remedy)
        else:
            problem = f"has {left} connections left for this user, and farcall needs 10"
            refused(run, url, problem, remedy, ("config check", "doctor"))


def test_an_encoding_that_cannot_hold_everything(run, server):
    for encoding in ("SQL_ASCII", "LATIN1"):
        server.execute(f"CREATE DATABASE of_{encoding} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        url = server.url(f"of_{encoding.lower()}")
        refused(run, url, f"the database's encoding is {encoding}, and has to be UTF8", "-> create another one and name it in store.url: CREATE DATABASE")


def test_no_such_database_user_or_password(run, server):
    at = f"127.0.0.1:{server.port}"
    refused(run, server.url("nowhere"), f"the database server at {at} has no such database", "-> correct the name in store.url")
    for user in ("nobody", "farcall", "farcall:" + PASSWORD[::-1]):
        url = f"postgres://{user}@{at}/postgres"
        if user == "nobody":
            problem, remedy = f"the database server at {at} does not let this user in", "-> correct the user and the password in store.url, or in .pgpass (mode 0600"
        else:
            problem, remedy = f"the database server at {at} does not let this user in", "pg_hba.conf"
        refused(run, url, problem, remedy)


def test_a_user_who_may_make_no_tables(run, server):
    url = server.create("anothers").replace("postgres@", f"farcall:{PASSWORD}@")
    remedy = "-> make the service's user the owner of its database: ALTER DATABASE name OWNER TO "
    refused(run, url, "the database user farcall may not make tables", remedy, ("config check", "doctor"))
    refused(run, url, "the database user lacks a right: permission denied for schema public", remedy, ("serve",))


def test_other_tables(testbed, run, server):
    url = server.create("tables")
    status, said = run(url, "doctor")
    assert status == 0 and "takes writes, and has no tables yet; the first start makes them" in said
    service = testbed.service(configuration=f"store: {{url: '{url}'}}\n")
    status, said = run(url, "doctor")
    # Another service than the one on this data directory has the database.
    problem = f"another farcall service uses the database at 127.0.0.1:{server.port}"
    refused(run, url, problem, "-> stop that service first, or give this one a database of its own")
    # The doctor of that one is content.
    done = subprocess.run([binary("farcall"), "doctor", "--data-dir", service.data], env=testbed.environment(), capture_output=True, text=True)
    assert "takes writes, and has the tables of this version" in done.stdout, done.stdout
    service.stop()
    status, said = run(url, "config check")
    assert status == 0 and "The configuration is right." in said, said

    later = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '\\x00', 1)"
    server.execute(later + "; UPDATE schema_compatibility SET oldest_known = 9999", "tables")
    refused(run, url, "the database was written by a newer version of farcall (it has change 9999", "run that version or a later one")
    server.execute("UPDATE schema_compatibility SET oldest_known = 1", "tables")
    status, said = run(url, "doctor")
    assert status == 0 and "has the tables of a later version (change 9999" in said, said
    server.execute("DELETE FROM _sqlx_migrations WHERE version = 9999; UPDATE _sqlx_migrations SET checksum = '\\x00'", "tables")
    refused(run, url, "the database has tables of another origin", "-> give farcall a database of its own", ("serve",))


def test_a_clock_that_is_apart(run, server):
    status, said = run(server.create("clock"), "doctor")
    assert status == 0 and "warning  database: " not in said, said
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    variables = {"LD_PRELOAD": library, "FAKETIME": "-60s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    status, said = run(server.url("clock"), "doctor", **variables)
    assert status == 0, said
    warned = "warning  database: the database server's clock is 60 s ahead of this machine's"
    slightly = "warning  database: the database server's clock is 59 s ahead of this machine's"
    assert warned in said or slightly in said, said
    assert "-> run a time service, such as chrony, on both machines" in said


def test_a_database_that_does_not_wait_for_the_disk(run, server):
    def warned(url, named, remedy):
        for command in ("config check", "doctor"):
            status, said = run(url, command)
            assert status == 0 and named in said and remedy in said.split(named, 1)[1], f"{command}: {said}"

    url = server.create("hasty")
    server.execute("ALTER DATABASE hasty SET synchronous_commit = off")
    warned(url, "synchronous_commit is off for the database user postgres", "-> ALTER ROLE postgres RESET synchronous_commit")
    server.execute("ALTER DATABASE hasty RESET synchronous_commit")
    for command in ("config check", "doctor"):
        status, said = run(url, command)
        assert status == 0 and "synchronous_commit" not in said and "fsync" not in said, f"{command}: {said}"
    with Postgres("unsafe") as other:
        warned(other.create("unsafe"), f"fsync is off on the database server at 127.0.0.1:{other.port}", "-> set fsync = on")


@pytest.mark.parametrize(
    "url, said",
    [
        ("mysql://h/d", "store.url: it has to look like postgres://USER@HOST:PORT/DATABASE"),
        ("postgres:///farcall", "store.url: it has to look like postgres://USER@HOST:PORT/DATABASE"),
        ("postgres://u@h/d?sslmod=require", "store.url: the parameter sslmod is unknown; there are sslmode"),
        ("postgres://u@h:port/d", "store.url: "),
        (f"postgres://u:?{PASSWORD}@h/d", "store.url: it has to look like postgres://USER@HOST:PORT/DATABASE"),
    ],
)
def test_a_url_that_is_none(run, url, said):
    for command in CHECKS:
        status, printed = run(url, command)
        assert status == 1 and said in printed, f"{command}: {printed}"


def test_the_password_is_shown_nowhere(testbed, run, server):
    server.execute("CREATE DATABASE secret OWNER farcall ENCODING 'UTF8' TEMPLATE template0")
    url = f"postgres://farcall:{PASSWORD}@127.0.0.1:{server.port}/secret"
    service = testbed.service(configuration=f"store: {{url: '{url}'}}\n")
    printed = subprocess.run([binary("farcall"), "config", "print", "--data-dir", service.data], env=testbed.environment(), capture_output=True, text=True)
    assert f'url: "postgres://farcall:***@127.0.0.1:{server.port}/secret"' in printed.stdout, printed.stdout + printed.stderr
    assert PASSWORD not in printed.stdout
    # By the environment, too.
    status, said = run("postgres://h/d", "config print", FARCALL_STORE__URL=url)
    assert status == 0 and '/secret"  # FARCALL_STORE__URL' in said
    # The command line is for everybody to see.
    status, said = run(url, f"config print --set store.url={url}")
    assert status == 1 and "--set store.url: it holds a password" in said and "FARCALL_STORE__URL" in said
    # A mistake in the file is shown with its place, not with its line.
    (service.data / "farcall.yaml").write_text(f"store: {{url: 'postgres://farcall:{PASSWORD}@h/d', urll: [}}\n")
    done = subprocess.run([binary("farcall"), "config", "check", "--data-dir", service.data], env=testbed.environment(), capture_output=True, text=True)
    assert done.returncode == 1 and PASSWORD not in done.stderr, done.stderr
    (service.data / "farcall.yaml").write_text(f"store: {{url: '{url}'}}\n")

    # While the database is away, and once its user is let in no more.
    server.execute("ALTER ROLE farcall PASSWORD 'another'")
    server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'farcall'")
    rest = service.rest()
    until(lambda: not _answers(rest) and "the database cannot be used" in service.process.output(), "the outage is logged", 60)
    server.execute(f"ALTER ROLE farcall PASSWORD '{PASSWORD}'")
    until(lambda: _answers(rest), "the service answers again", 60)
    time.sleep(0.1)
    command_lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert PASSWORD not in service.process.output() and PASSWORD not in command_lines.replace("ps -eo", "")


def _answers(rest):
    try:
        return rest.get("/v2/endpoints") == []
    except Exception:
        return False
