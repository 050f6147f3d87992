"""`farcall backup` while tasks run, and `farcall restore`: what was there before the backup is there after it, on SQLite and on
PostgreSQL."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import environments
import guide_blocks
import pytest
from large_tasks import COLLECT, LARGE, WAITING
from postgres import Postgres, as_user
from testbed import ROOT, Service, binary

pytestmark = pytest.mark.sqlite("it has databases of its own")

SUBMIT = """
import sys, threading

def echo(number, padding):
    return number, padding

with executor(sys.argv[1]) as ex:
    report(str(ex.task_group_id))
    for number in range(1_000):
        ex.submit(echo, number, "x" * int(sys.argv[2])).result(timeout=90)
        report(number)
"""


def farcall(testbed, *arguments):
    command = [str(part) for part in (binary("farcall"), *arguments)]
    return subprocess.run(command, env=testbed.environment(), capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def postgres():
    with Postgres("backup") as server:
        yield server


@pytest.mark.parametrize(("before", "after"), [("sqlite", "sqlite"), ("postgres", "postgres"), ("postgres", "sqlite")])
def test_under_load(testbed, request, before, after):
    """From the database `before` to the database `after`."""

    def configuration(database, name):
        """Of a service with an empty database of that kind."""
        if database == "sqlite":
            return "log: {filter: info}\n"
        name = f"{name}_{before}_{after}"
        return f"store: {{url: {request.getfixturevalue('postgres').create(name)}}}\n"

    service = testbed.service(configuration=configuration(before, "lost"))
    sdk = service.sdk("4.19.0")
    busy = testbed.endpoint(service, "busy")
    idle = testbed.endpoint(service, "idle")
    idle.stop()
    waiting = sdk.run(WAITING, idle.id, LARGE)[0]

    # Large payloads come and go all the time while the backup is made.
    load = sdk.start(SUBMIT, busy.id, str(LARGE))
    load.wait_for_report(3)
    for name in ("first", "second"):
        seen = len(load.reports())
        done = farcall(testbed, "backup", testbed.directory / name, "--data-dir", service.data)
        assert done.returncode == 0, done.stderr
        tasks, payloads = map(int, re.search(r"holds (\d+) tasks and (\d+) large payloads?\.", done.stdout).groups())
        assert tasks >= 20 + seen - 1 and payloads >= 20
        load.wait_for_report(seen + 2)
    again = farcall(testbed, "backup", testbed.directory / "first", "--data-dir", service.data)
    assert again.returncode == 1 and "exists already" in again.stderr
    assert sorted(path.name for path in testbed.directory.glob("*.unfinished")) == []
    load.process.kill()
    busy.stop()
    service.kill()

    # On another machine, after this one was lost.
    restored = Service(testbed, "restored")
    restored.http_port, restored.amqp_port = service.http_port, service.amqp_port
    restored.identity = service.identity
    if before == "postgres":
        # The backup's own configuration names the database that is still there.
        done = farcall(testbed, "restore", testbed.directory / "second", "--data-dir", restored.data)
        assert done.returncode == 1 and "is not empty" in done.stderr and "nothing is overwritten" in done.stderr
        assert not (restored.data / "farcall.yaml").exists() and not (restored.data / "farcall.db").exists()
    restored.data.mkdir(exist_ok=True)
    (restored.data / "farcall.yaml").write_text(configuration(after, "restored"))
    done = farcall(testbed, "restore", testbed.directory / "second", "--data-dir", restored.data)
    assert done.returncode == 0, done.stderr
    assert (restored.data / "farcall.db").exists() == (after == "sqlite")
    testbed.services.append(restored)
    restored.start()
    for endpoint in (busy, idle):
        endpoint.service = restored
    # Its id, its function and its tasks are known: they run now.
    known = idle.id
    idle.start()
    assert idle.id == known
    results = restored.sdk("4.19.0").run(COLLECT, *waiting)
    assert results == [[number, LARGE] for number in range(20)]
    doctor = farcall(testbed, "doctor", "--data-dir", restored.data)
    assert "database" in doctor.stdout


def test_with_the_programs_of_postgresql(testbed, postgres):
    """As docs/postgresql.md says: `pg_dump` while the lock of the payload directory is held, then the files; back in the other
    order."""
    service = testbed.service(configuration=f"store: {{url: {postgres.create('dumped')}}}\n")
    sdk = service.sdk("4.19.0")
    busy, idle = testbed.endpoint(service, "busy"), testbed.endpoint(service, "idle")
    idle.stop()
    waiting = sdk.run(WAITING, idle.id, LARGE)[0]
    load = sdk.start(SUBMIT, busy.id, str(LARGE))
    load.wait_for_report(3)
    backup = testbed.directory / "dumped"
    backup.mkdir()
    server = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "postgres"]
    # Its user may not write to the tests' directory.
    dump = shlex.join(map(str, as_user([postgres.programs / "pg_dump", *server, "--format=custom", "dumped"])))
    files = " ".join(str(service.data / name) for name in ("payloads", "keys", "tls", "farcall.yaml"))
    both = f"{dump} > {backup}/farcall.dump && cp -a {files} {backup}"
    subprocess.run(["flock", service.data / "payloads", "sh", "-c", both], check=True, timeout=60)
    load.process.kill()
    busy.stop()
    service.kill()

    restored = Service(testbed, "restored")
    restored.http_port, restored.amqp_port = service.http_port, service.amqp_port
    restored.identity = service.identity
    shutil.copytree(backup, restored.data, ignore=shutil.ignore_patterns("farcall.dump"))
    (restored.data / "farcall.yaml").write_text(f"store: {{url: {postgres.create('undumped')}}}\n")
    back = as_user([postgres.programs / "pg_restore", *server, "--single-transaction", "--dbname=undumped"])
    with (backup / "farcall.dump").open() as dumped:
        subprocess.run(back, stdin=dumped, check=True, timeout=60)
    named = "SELECT payload_file FROM assignments UNION SELECT file FROM results UNION SELECT payload_file FROM staged_tasks"
    named = f"SELECT encode(payload_file, 'hex') FROM ({named}) AS files WHERE payload_file IS NOT NULL"
    kept = {path.name.replace("-", "") for path in (restored.data / "payloads").iterdir()}
    lost = [name for (name,) in postgres.execute(named, "undumped") if name not in kept]
    assert lost == [], "the dump names files that were not copied"
    testbed.services.append(restored)
    restored.start()
    idle.service = busy.service = restored
    idle.start()
    assert restored.sdk("4.19.0").run(COLLECT, *waiting) == [[number, LARGE] for number in range(20)]


def test_it_is_put_where_nothing_is(testbed):
    service = testbed.service()
    service.administer("user", "add", "alice@example.org", "--no-password")
    (service.data / "farcall.yaml").write_text("log: {filter: warn}\n")
    (service.data / "tls" / "key.pem").write_text("a key")
    service.stop()
    done = farcall(testbed, "backup", testbed.directory / "backup", "--data-dir", service.data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{testbed.directory}/backup holds 0 tasks and 0 large payloads.\n"
    assert not list(service.data.glob("farcall.db-*")), "it leaves nothing behind"

    target = testbed.directory / "target"
    done = farcall(testbed, "restore", testbed.directory / "backup", "--data-dir", target)
    assert done.returncode == 0, done.stderr
    users = json.loads(farcall(testbed, "user", "list", "--data-dir", target, "--output", "json").stdout)
    assert [user["username"] for user in users] == ["alice@example.org"]
    for name in ("farcall.yaml", "tls/key.pem", "keys/id-token.pem"):
        assert (target / name).read_bytes() == (service.data / name).read_bytes()
        assert (target / name).stat().st_mode == (service.data / name).stat().st_mode

    for directory, words in [
        ((testbed.directory / "backup", target), "holds a service's data already"),
        ((testbed.directory / "home", testbed.directory / "other"), "is no backup: it has no farcall.db"),
    ]:
        done = farcall(testbed, "restore", directory[0], "--data-dir", directory[1])
        assert done.returncode == 1 and words in done.stderr, done.stderr
    done = farcall(testbed, "backup", testbed.directory / "none", "--data-dir", testbed.directory / "empty")
    assert done.returncode == 1 and "empty is not the data directory of a service: it does not exist" in done.stderr


# A user that every system has, and that is nobody else's here: it plays the service's.
USER = "daemon"
# `sudo` and `systemctl` of this machine, as far as the page goes; the users are real.
PLAYED = f"""
sudo() {{
    if [ "$1" = -u ]; then shift 2; setpriv --reuid={USER} --regid={USER} --clear-groups -- "$@"; else "$@"; fi
}}
systemctl() {{ true; }}
"""


def test_the_services_user_backs_up_and_restores_as_the_guide_says():
    """With two users for real: /var/lib belongs to root, what is in it to the service's user."""
    assert os.geteuid() == 0, "one user can't become another: run this as root"
    page = ROOT / "docs" / "guide" / "service.md"
    lines = page.read_text().splitlines()
    begin, end = lines.index("## Back up and restore"), lines.index("## Upgrade")
    blocks = [block for block in guide_blocks.blocks(page) if begin < block.line < end and block.language == "sh"]
    assert len(blocks) == 2
    admin = next(line for line in lines if line.startswith("admin() "))

    def here(text):
        return text.replace("/var/lib", f"{place}/var/lib").replace("-o farcall", f"-o {USER}").replace("-u farcall", f"-u {USER}")

    # Not below pytest's own directory, which is root's alone.
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        data = place / "var" / "lib" / "farcall"
        data.parent.mkdir(parents=True)
        for path in (place, place / "var", data.parent):
            path.chmod(0o755)
        shutil.copy(binary("farcall"), place / "farcall")
        environment = {"PATH": f"{place}:{os.environ['PATH']}"}

        def run(*commands):
            script = "\n".join(["set -e", PLAYED, here(admin), *map(here, commands)])
            return subprocess.run(["bash", "-c", script], env=environment, cwd=place, capture_output=True, text=True, timeout=60)

        @contextlib.contextmanager
        def serving():
            command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", place / "farcall", "serve"]
            command += ["--data-dir", data, "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as service:
                try:
                    assert "farcall is ready" in service.stdout.readline()
                    yield
                finally:
                    service.terminate()

        assert run("sudo install -d -m 700 -o farcall /var/lib/farcall").returncode == 0
        with serving():
            assert run("admin user add alice@example.org --no-password").returncode == 0
            done = run(blocks[0].text)
            assert done.returncode == 0 and guide_blocks.shows(done.stdout, here(blocks[0].shown), {}), done.stdout + done.stderr
        done = run(blocks[1].text)
        assert done.returncode == 0 and guide_blocks.shows(done.stdout, here(blocks[1].shown), {}), done.stdout + done.stderr
        with serving():
            assert "alice@example.org" in run("admin user list").stdout
        # Nobody's but the service's user's, in the backup as well.
        uid = data.stat().st_uid
        assert uid != 0 and data.stat().st_mode & 0o777 == 0o700
        for path in [*data.rglob("*"), *(data.parent / "backups").rglob("*")]:
            assert path.stat().st_uid == uid and path.stat().st_mode & 0o077 == 0, f"{path}: {oct(path.stat().st_mode)}"
        assert (data.parent / "farcall.lost" / "farcall.db").exists()


def test_a_newer_data_directory_is_refused(testbed):
    service = testbed.service()
    service.stop()
    change = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "db.execute(\"INSERT INTO _sqlx_migrations VALUES (9999, 'later', '2030-01-01', 1, x'00', 1)\"); "
        "db.execute(\"UPDATE schema_compatibility SET oldest_known = 9999\"); db.commit()"
    )
    subprocess.run([environments.python("tests"), "-c", change, service.data / "farcall.db"], check=True)
    done = farcall(testbed, "serve", "--data-dir", service.data)
    assert done.returncode == 1
    assert "the database was written by a newer version of farcall (it has change 9999" in done.stderr
