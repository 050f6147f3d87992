"""People with accounts on this machine, and a manager of ours that starts user endpoints as them.

Accounts are real: tests that use them run as root. One pytest process at a time has them.
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import textwrap
import uuid
from pathlib import Path

import environments
from processes import until
from rest import Refused
from testbed import Endpoint, binary

NAMES = ("alicia", "roberto", "harper", "tory", "jessica")
LOCK = Path("/run/lock/farcall-test-users")
# Where every user can read it: root's home is closed to others.
PLACE = Path("/var/tmp/farcall-tests")
# Debian's: pyenv's lies in root's home.
PYTHON = Path("/usr/bin/python3.11")

TEMPLATE = """
    engine:
      type: GlobusComputeEngine
      max_workers_per_node: {{ workers|default(1) }}
      provider:
        type: LocalProvider
        init_blocks: 1
        min_blocks: 0
        max_blocks: 1
    heartbeat_period: {{ period|default(5) }}
    idle_heartbeats_soft: {{ soft|default(0) }}
"""


def skip_reason():
    """Why these tests can't run here; None if they can."""
    if os.geteuid() != 0:
        return "needs root: it makes local users"
    if not PYTHON.exists():
        return f"{PYTHON} is missing: apt-get install python3.11"
    return None


class LocalUsers:
    """The accounts, while the lock is held."""

    def __init__(self, names=NAMES):
        self.names = names

    def __enter__(self):
        self._lock = open(LOCK, "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._remove()
        for name in self.names:
            shell = "/usr/sbin/nologin" if name == "jessica" else "/bin/bash"
            subprocess.run(["useradd", "-m", "-s", shell, name], check=True, capture_output=True)
        return self

    def __exit__(self, *_):
        self._remove()
        self._lock.close()

    def _remove(self):
        for name in self.names:
            for pid in processes_of(name):
                _kill(pid)
            subprocess.run(["userdel", "-r", "-f", name], capture_output=True)

    def __getitem__(self, name):
        return pwd.getpwnam(name)


def ids(people, *names):
    """A mapping of these people to the accounts of their names."""
    return {people[name][0]: name for name in names}


def processes_of(name):
    """The processes of a user, by their ids."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
        except FileNotFoundError:
            continue
    return found


def children_of(pid):
    """The ids of a process's children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def parent_of(pid):
    """The id of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _kill(pid):
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass


def python(release="sdk-4.19.0"):
    """A Python that every user can run, with the packages of this environment; made once on a machine."""
    source = environments.make(release)
    packages = next((source.parent.parent / "lib").glob("python*")) / "site-packages"
    directory = PLACE / f"{release}-{hashlib.sha256(str(packages).encode()).hexdigest()[:12]}"
    PLACE.mkdir(mode=0o755, exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run([PYTHON, "-m", "venv", "--without-pip", directory], check=True)
            target = directory / "lib" / "python3.11" / "site-packages"
            shutil.copytree(packages, target, dirs_exist_ok=True, symlinks=True)
            # Group and others read what root may.
            subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
            (directory / "complete").touch()
    return directory / "bin" / "python"


def programs(release):
    """A directory with the programs of this environment, for `PATH`: every user can run them."""
    interpreter, source = python(release), environments.python(release).parent
    directory = interpreter.parent.parent / "programs"
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        directory.mkdir(mode=0o755, exist_ok=True)
        for script in source.iterdir():
            text = script.read_bytes() if script.is_file() and not script.is_symlink() else b""
            first, _, rest = text.partition(b"\n")
            if first.startswith(b"#!" + bytes(source)):
                (directory / script.name).write_bytes(b"#!" + bytes(interpreter) + b"\n" + rest)
                (directory / script.name).chmod(0o755)
    return directory


def virtual_environment(version, found):
    """A virtual environment of another Python that every user can enter, without any package. `found`: its interpreter, which
    may lie in root's home."""
    directory = PLACE / f"py{version.replace('.', '')}"
    PLACE.mkdir(mode=0o755, exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "complete").exists():
            for made in (directory, copy := PLACE / f"python-{version}"):
                shutil.rmtree(made, ignore_errors=True)
            ask = [found, "-c", "import sys; print(sys.base_prefix)"]
            base = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
            library = Path("lib") / f"python{version}"
            left_out = shutil.ignore_patterns("test", "tests", "__pycache__", "site-packages", "config-*", "idlelib")
            shutil.copytree(base / library, copy / library, ignore=left_out, symlinks=True)
            (copy / "bin").mkdir()
            shutil.copy(base / "bin" / f"python{version}", copy / "bin")
            for shared in (base / "lib").glob(f"libpython{version}.so*"):
                shutil.copy(shared, copy / "lib")
            subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
            subprocess.run([copy / "bin" / f"python{version}", "-m", "venv", "--without-pip", directory], check=True)
            with open(directory / "bin" / "activate", "a") as activate:
                activate.write(f"export LD_LIBRARY_PATH={copy}/lib\n")
            subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
            (directory / "complete").touch()
    return directory


class PamService:
    """A service of PAM, removed with `remove`. PAM reads the file at each start."""

    def __init__(self, lines):
        self.name = f"farcall-test-{uuid.uuid4().hex[:12]}"
        self.path = Path("/etc/pam.d") / self.name
        self.write(lines)

    def write(self, lines):
        draft = self.path.with_name(f".{self.name}")
        draft.write_text("".join(f"{line}\n" for line in lines))
        draft.rename(self.path)

    def remove(self):
        self.path.unlink(missing_ok=True)


class OwnManager(Endpoint):
    """Our manager, started by root. `mapping`: client identities, each with the local user that it maps to. `pam`: the lines
    of a service of PAM that its user endpoints pass through, `self.pam`."""

    def __init__(
        self, testbed, service, mapping, name="mep", template=TEMPLATE, schema=None, config=None, environment=None, pam=None
    ):
        super().__init__(testbed, service, name, config=config)
        self.pam = None if pam is None else PamService(pam)
        if self.pam:
            self.config = self.config | {"pam": {"enable": True, "service_name": self.pam.name}}
        self.mapping = mapping
        self.template = template
        self.schema = schema
        self.user_environment = environment or {}

    @property
    def home(self):
        return self.directory / self.name

    @property
    def log(self):
        return self.home / "endpoint.log"

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def configure(self):
        self.home.mkdir(parents=True)
        # Users traverse it to read a template; nothing of root's lies beside it.
        for path in (self.home, self.directory):
            path.chmod(0o711)
        (self.home / "user_config_template.yaml.j2").write_text(textwrap.dedent(self.template))
        if self.schema is not None:
            (self.home / "user_config_schema.json").write_text(json.dumps(self.schema))
        path = [python().parent, "/usr/local/bin", "/usr/bin", "/bin", binary("globus-compute-endpoint").parent]
        environment = {"PATH": ":".join(map(str, path)), **self.user_environment}
        (self.home / "user_environment.yaml").write_text(json.dumps(environment))
        self.write_mapping(self.mapping)
        self.write_config()

    def stop(self):
        try:
            super().stop()
        finally:
            if self.pam:
                self.pam.remove()

    def write_mapping(self, mapping):
        """Replaces the identity mapping, as an administrator does."""
        mappings = [
            {"source": "{id}", "match": re.escape(identity).replace("\\-", "-"), "output": user}
            for identity, user in mapping.items()
        ]
        document = [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": mappings}]
        draft = self.home / "mapping.new"
        draft.write_text(json.dumps(document))
        draft.rename(self.home / "mapping.json")

    def write_config(self, **changes):
        config = {
            "display_name": self.name,
            "multi_user": True,
            "identity_mapping_config_path": str(self.home / "mapping.json"),
            **self.config,
            **changes,
        }
        (self.home / "config.yaml").write_text(json.dumps(config, indent=2))

    def children(self):
        """The process ids of its user endpoints."""
        return children_of(self.process.pid)

    def user_endpoint(self, name):
        """The process of this user's only user endpoint: with PAM a child of the process that holds the session."""
        below = {grandchild for child in self.children() for grandchild in (child, *children_of(child))}
        (found,) = below & set(processes_of(name))
        return found

    def wait_for_log(self, pattern, timeout=20):
        return until(lambda: re.search(pattern, self.log_text(), re.MULTILINE), f"the log says {pattern!r}", timeout)


class PersonalManager(OwnManager):
    """Our manager, started by a user of this machine: it serves its owner only."""

    def __init__(self, testbed, service, account, identity, **options):
        super().__init__(testbed, service, {}, **options)
        self.account = account
        self.identity = identity
        # Below the user's home: they can't enter root's directories.
        self.directory = Path(account.pw_dir) / "endpoints"

    def environment(self):
        environment = self.service.client_environment(python(), self.identity)
        # Root's: user endpoints would inherit it.
        del environment["GLOBUS_COMPUTE_USER_DIR"]
        return environment | {"FARCALL_SERVICE_URL": self.service.origin(), "HOME": self.account.pw_dir}

    def command(self, *arguments):
        become = ["setpriv", f"--reuid={self.account.pw_uid}", f"--regid={self.account.pw_gid}", "--init-groups"]
        return [*become, "env", "-C", self.account.pw_dir, *super().command(*arguments)]

    def online(self):
        try:
            return self.service.rest(self.identity).get(f"/v2/endpoints/{self.id}/status")["status"] == "online"
        except Refused:
            return False

    def configure(self):
        super().configure()
        subprocess.run(["chown", "-R", f"{self.account.pw_uid}:{self.account.pw_gid}", self.directory], check=True)


class UpstreamsManager(OwnManager):
    """Upstream's manager of a release, started by root."""

    def __init__(self, testbed, service, mapping, release, **options):
        super().__init__(testbed, service, mapping, name=f"upstreams-{release}", **options)
        directory = programs(f"sdk-{release}")
        self.program = directory / "globus-compute-endpoint"
        self.python = python(f"sdk-{release}")
        self.user_environment = {"PATH": f"{directory}:{self.python.parent}:/usr/bin:/bin"}
        self.release = release

    def environment(self):
        environment = super().environment()
        # User endpoints of 3.8.0 would make their directories below it.
        del environment["GLOBUS_COMPUTE_USER_DIR"]
        return environment

    def write_config(self, **changes):
        super().write_config(**changes)
        if self.release != "3.8.0":
            path = self.home / "config.yaml"
            # Every endpoint is a manager, and names whom to write to.
            config = json.loads(path.read_text()) | {"email": "operator@site.example"}
            del config["multi_user"]
            path.write_text(json.dumps(config))


class Person:
    """A client of the stock SDK that submits what a test tells it to, one call after another: it is imported once."""

    LOOK = """
        import json, sys, time

        def look():
            import os, sys

            names = ("PATH", "HOME", "USER", "PWD", "CHOICE", "FROM_TEMPLATE", "SITE_SPECIFIC_VAR", "NUMBER")
            environment = {name: os.environ.get(name) for name in names}
            return {"uid": os.getuid(), "node": os.getppid(), "environment": environment, "python": list(sys.version_info[:2])}

        def orders():
            line = ""
            with open(sys.argv[2]) as file:
                while True:
                    line += file.readline()
                    if line.endswith("\\n"):
                        yield json.loads(line)
                        line = ""
                    time.sleep(0.02)

        for config in orders():
            with executor(sys.argv[1], user_endpoint_config=config) as ex:
                future = ex.submit(look)
                error = future.exception(timeout=100)
            report(future.result() if error is None else str(error).replace("\\\\n", "\\n"))
    """

    def __init__(self, sdk, manager):
        testbed = manager.testbed
        self._orders = testbed.directory / f"orders-{len(testbed.processes)}"
        self._orders.touch()
        self._asked = 0
        self._script = sdk.start(self.LOOK, manager.id, self._orders)

    def ask(self, **config):
        """Submits with this configuration, and does not wait."""
        with open(self._orders, "a") as orders:
            orders.write(json.dumps(config) + "\n")
        self._asked += 1

    def answer(self):
        """What the task of the last submit saw; a text: why there was none."""
        return self._script.wait_for_report(self._asked, 100)

    def look(self, **config):
        self.ask(**config)
        return self.answer()
