"""Starts a real PostgreSQL for tests: on loopback only, with a free port and its own data directory.

    python3.11 tests/postgres.py -- cargo nextest run -p store   # runs a command with FARCALL_TEST_POSTGRES, ends the server
    python3.11 tests/postgres.py --install                        # only installs PostgreSQL if it is missing

PostgreSQL refuses to run as root: as root, it runs as the user of its package. A server ends with the thread that started
it, whatever becomes of the tests. It may never touch a server that it did not start.
"""

import argparse
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from processes import Process, alive, free_ports, until

VARIABLE = "FARCALL_TEST_POSTGRES"
RUN_AS = "postgres"
VERSIONS = Path("/usr/lib/postgresql")
OLDEST = 13
PACKAGE = "postgresql"
# The distribution's package makes and starts a server of its own unless this file says otherwise.
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.conf")
# Nothing survives a crash of the machine, and everything is faster. A crash of PostgreSQL itself loses nothing.
UNSAFE = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "autovacuum_naptime": "10s",
    "log_line_prefix": "%m [%p] %a %e ",
    "wal_level": "replica",
    "max_wal_senders": "8",
    # A standby that was away, and a data directory of a few megabytes, need bounds for the log.
    "wal_keep_size": "64MB",
    "wal_log_hints": "on",
    "restart_after_crash": "on",
}


def programs():
    """The directory of the newest installed PostgreSQL; None if there is none."""
    installed = [path.parent for path in VERSIONS.glob("*/bin/postgres") if path.parts[-3].isdigit()]
    newest = max(installed, key=lambda path: int(path.parent.name), default=None)
    return newest if newest and int(newest.parent.name) >= OLDEST else None


def install():
    """Installs PostgreSQL from the distribution's packages, unless it is installed. A lock keeps two runs apart."""
    with open(Path(tempfile.gettempdir()) / "farcall-install-postgres.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if programs():
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise SystemExit(f"The tests need PostgreSQL {OLDEST} or newer. Install it (as root: apt-get install {PACKAGE}).")
        if not NO_CLUSTER.exists():
            NO_CLUSTER.parent.mkdir(exist_ok=True)
            NO_CLUSTER.write_text("create_main_cluster = false\n")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold", PACKAGE]
        for command in (["update", "-qq"], install):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"apt-get {' '.join(command)} failed:\n{done.stdout}{done.stderr}"


def as_user(command, end_with_us=False):
    """The command as whom PostgreSQL runs as."""
    end = ["--pdeathsig", "QUIT"] if end_with_us else []
    user = ["--reuid", RUN_AS, "--regid", RUN_AS, "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, *end, "--", *map(str, command)]


class Postgres:
    """One server. `durable`: with fsync, as an installation runs it. `size_mib`: its data has a file system of this size (as
    root). `settings` override ours."""

    def __init__(self, name="postgres", durable=False, size_mib=None, settings=None, source=None):
        install()
        self.name = name
        self.programs = programs()
        self.directory = Path(tempfile.mkdtemp(prefix=f"farcall-{name}-"))
        self.data = self.directory / "volume" / "data"
        self.mounted = False
        self.settings = SETTINGS | (SAFE if durable else UNSAFE) | (settings or {})
        (self.port,) = free_ports(1)
        self._process = None
        self._paused = False
        self.data.parent.mkdir()
        try:
            if size_mib is not None:
                mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0700", "farcall-tests", self.data.parent]
                subprocess.run(mount, check=True)
                self.mounted = True
                self.settings |= {"min_wal_size": "2MB", "max_wal_size": "8MB", "wal_keep_size": "0"}
            _hand_over(self.directory, self.data.parent)
            if source is None:
                self._make(["--wal-segsize=1"] if self.mounted else [])
            else:
                self._copy(source)
            self.start()
        except BaseException:
            self.remove()
            raise

    # What it holds.

    def _make(self, options):
        """A new server's data, copied from the cache: a copy is ten times faster than `initdb`."""
        options = ["-U", RUN_AS, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", *options]
        digest = hashlib.sha256(f"{self._version()} {options}".encode()).hexdigest()[:16]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "farcall" / "postgres"
        cache.mkdir(parents=True, exist_ok=True)
        with open(cache / f"{digest}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (cache / digest).exists():
                self._run("initdb", "-D", self.data, *options)
                shutil.copytree(self.data, cache / f"{digest}.new")
                os.rename(cache / f"{digest}.new", cache / digest)
                return
        shutil.copytree(cache / digest, self.data)
        self.data.chmod(0o700)
        _hand_over(*self._below(self.data))

    def _copy(self, primary):
        """A copy of a running server, which follows it once it is started."""
        primary.execute(f"SELECT pg_create_physical_replication_slot('{self.name}') WHERE NOT EXISTS"
                        f" (SELECT 1 FROM pg_replication_slots WHERE slot_name = '{self.name}')")  # fmt: skip
        where = f"host=127.0.0.1 port={primary.port} user={RUN_AS} application_name={self.name}"
        options = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]
        self._run("pg_basebackup", "-D", self.data, "-d", where, "--slot", self.name, *options)

    def _version(self):
        return subprocess.run([self.programs / "postgres", "--version"], check=True, capture_output=True, text=True).stdout

    @staticmethod
    def _below(directory):
        return [directory, *directory.rglob("*")]

    def _environment(self):
        return {"PATH": f"{self.programs}:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self.directory)}

    def _run(self, program, *arguments):
        """Runs one of its programs to its end and returns what it printed."""
        command = as_user([self.programs / program, *arguments])
        done = subprocess.run(command, env=self._environment(), cwd=self.directory, capture_output=True, text=True)
        assert done.returncode == 0, f"{program} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def url(self, database="postgres", *others):
        """Where a service finds a database: on this server, or on one of these."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self, *others))
        return f"postgres://{RUN_AS}@{hosts}" + (f"/{database}" if database else "")

    def execute(self, sql, database="postgres"):
        """Runs SQL and returns its rows as lists of texts."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", RUN_AS, "-d", database]
        printed = self._run("psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", *where, "-c", sql)
        return [line.split("\t") for line in printed.splitlines()]

    def create(self, database):
        """Makes an empty database and returns its URL."""
        self.execute(f"CREATE DATABASE {database} ENCODING 'UTF8' TEMPLATE template0")
        return self.url(database)

    def configure(self, **settings):
        """Changes settings of the running server, those that need no restart; `None` takes one back."""
        for name, value in settings.items():
            self.execute(f"ALTER SYSTEM RESET {name}" if value is None else f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")

    # Whether it runs.

    def begin(self):
        """Starts it and does not wait."""
        settings = self.settings | {"port": self.port, "unix_socket_directories": self.directory}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = as_user([self.programs / "postgres", "-D", self.data, *options], end_with_us=True)
        self._process = Process("server", command, self._environment(), self.directory)

    def start(self, timeout=30):
        """Starts it on the same port and waits until it takes connections."""
        self.begin()

        def ready():
            if not self._process.running():
                raise AssertionError(f"{self.name} ended:\n{self._process.output()[-4000:]}")
            return self.ready()

        until(ready, f"{self.name} takes connections", timeout)

    def ready(self):
        """Whether it takes connections."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # The first line is its process id, the last its state.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    @property
    def pid(self):
        return self._process.pid

    def running(self):
        return self._process is not None and self._process.running()

    def stop(self, mode="fast", timeout=30):
        """Stops it in an orderly way: `smart` waits for its clients, `fast` ends their sessions, `immediate` is a crash."""
        self.resume()
        if self.running():
            os.kill(self.pid, {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not stop within {timeout} s:\n{self.log()[-4000:]}") from None

    def kill(self):
        """SIGKILL to it and to each of its processes, as when the machine fails. `start` starts it again."""
        left = self._processes()
        for pid in left:
            _signal(pid, signal.SIGKILL)
        if self._process:
            self._process.kill()
        until(lambda: not any(map(alive, left)), f"{self.name}'s processes have ended")
        self._paused = False

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def pause(self):
        """Stops all its processes where they are, as a machine that hangs: connections stay, nobody answers."""
        self._paused = True
        # The postmaster first: it would start others.
        for _ in range(2):
            for pid in self._processes():
                _signal(pid, signal.SIGSTOP)

    def resume(self):
        if self._paused:
            self._paused = False
            for pid in reversed(self._processes()):
                _signal(pid, signal.SIGCONT)

    def _processes(self):
        """The postmaster and its children."""
        if not self.running():
            return []
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            children = []
        return [self.pid, *map(int, children)]

    def log(self):
        """What it has written, all its runs."""
        try:
            return self._process.log.read_text(errors="replace")
        except OSError:
            return ""

    # Standbys.

    def standby(self, name="standby", synchronous=True):
        """A server that follows this one. `synchronous`: a commit here waits until it is there too."""
        follower = Postgres(name, settings=self.settings, source=self)
        if synchronous:
            self.configure(synchronous_standby_names=name)
            until(lambda: self._state_of(name) == "sync", f"{name} is a synchronous standby of {self.name}")
        return follower

    def _state_of(self, name):
        rows = self.execute(f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'")
        return rows[0][0] if rows else None

    def promote(self):
        """Makes a standby the primary."""
        self.execute("SELECT pg_promote()")
        assert self.execute("SELECT pg_is_in_recovery()") == [["f"]]

    def follow(self, primary, synchronous=True):
        """Comes back as a standby of another, with that one's data, on the same port."""
        self.kill()
        shutil.rmtree(self.data)
        self._copy(primary)
        self.start()
        if synchronous:
            primary.configure(synchronous_standby_names=self.name)
            until(lambda: primary._state_of(self.name) == "sync", f"{self.name} is a synchronous standby of {primary.name}")

    # Its file system.

    def fill(self):
        """Fills its small file system."""
        assert self.mounted, "only a server with a size of its own is filled"
        size, step = 0, 1 << 20
        with open(self.data.parent / "ballast", "wb", buffering=0) as ballast:
            while step >= 4096:
                try:
                    os.posix_fallocate(ballast.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2

    def free(self):
        (self.data.parent / "ballast").unlink(missing_ok=True)

    def remove(self):
        """Ends it and removes what it held."""
        self.kill()
        if self.mounted:
            until(lambda: subprocess.run(["umount", self.data.parent]).returncode == 0, f"{self.data.parent} is free", 10)
            self.mounted = False
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


class Databases:
    """Databases on the server that FARCALL_TEST_POSTGRES names."""

    def __init__(self):
        self._names = []

    def create(self):
        """Makes an empty one and returns its URL."""
        name = f"testbed_{uuid.uuid4().hex}"
        self._run(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        self._names.append(name)
        return f"{os.environ[VARIABLE].rstrip('/')}/{name}"

    def remove(self):
        while self._names:
            self._run(f"DROP DATABASE {self._names.pop()} WITH (FORCE)")

    @staticmethod
    def _run(sql):
        psql = [programs() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", os.environ[VARIABLE].rstrip("/") + "/postgres", "-c", sql]
        done = subprocess.run(psql, env={"LANG": "C.UTF-8"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Session:
    """A session that is held, with as much of the protocol as that takes. `Full` when the server has none left."""

    def __init__(self, server, database="postgres", timeout=5):
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout)
        self._buffer = b""
        parameters = f"user\0{RUN_AS}\0database\0{database}\0application_name\0tests\0\0".encode()
        self._socket.sendall(struct.pack("!ii", 8 + len(parameters), 196608) + parameters)
        self._until_ready()

    def execute(self, sql):
        text = sql.encode() + b"\0"
        self._socket.sendall(b"Q" + struct.pack("!i", 4 + len(text)) + text)
        self._until_ready()

    def _until_ready(self):
        while True:
            kind, length = struct.unpack("!ci", self._receive(5))
            body = self._receive(length - 4)
            if kind == b"E":
                raise Full(body.decode(errors="replace")) if b"C53300" in body else AssertionError(body)
            if kind == b"Z":
                return

    def _receive(self, count):
        while len(self._buffer) < count:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the server ended the session")
            self._buffer += received
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def close(self):
        self._socket.close()


class Full(Exception):
    """The server has no connection left."""


def _hand_over(*paths):
    """Makes the user that the server runs as their owner."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(RUN_AS)
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid)


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def main():
    parser = argparse.ArgumentParser(description="Runs a command with a PostgreSQL server, whose URL is in FARCALL_TEST_POSTGRES.")
    parser.add_argument("--install", action="store_true", help="install PostgreSQL if it is missing, and no more")
    parser.add_argument("--durable", action="store_true", help="with fsync")
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")
    options = parser.parse_args()
    if options.install:
        install()
        return 0
    if not options.command:
        parser.error("name a command after --")
    # Ctrl-C reaches the command too, which ends as it wants to; then the server does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = None

    def stop(number, _frame):
        if running:
            running.send_signal(number)
        else:
            sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    # Tests of several crates run beside each other, each with readers of its own.
    with Postgres(durable=options.durable, settings={"max_connections": "500"}) as server:
        environment = os.environ | {VARIABLE: server.url(None)}
        running = subprocess.Popen(options.command, env=environment, restore_signals=True, preexec_fn=_default_interrupt)
        status = running.wait()
    return 128 - status if status < 0 else status


def _default_interrupt():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
