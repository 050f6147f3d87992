"""Starts a real RabbitMQ, with which ours is compared: on loopback only, with free ports and its own data directory.

It runs as the user of its package, who may not read pytest's directories.

Erlang's port mapper (epmd) is started here too, on a free port. Otherwise it would listen on all addresses, on its
well-known port, and outlive the test. Both are ended by their ids.
"""

import base64
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from processes import Process, alive, free_ports, listening, until

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
RUN_AS = "rabbitmq"

# Users of the scenarios: name -> what they may configure, write and read. `None` may not open the virtual host.
USERS = {"guest": ".*", "limited": "^limited", "outsider": None}


def install():
    """Installs RabbitMQ from the distribution's packages, unless it is installed. A lock keeps two runs apart."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with open(Path(tempfile.gettempdir()) / "farcall-install-rabbitmq.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (PROGRAMS / "rabbitmq-server").exists():
            return
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"]):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"apt-get {' '.join(command)} failed:\n{done.stdout}{done.stderr}"


class RabbitMQ:
    """One node. `kept` names durable queues that it has from the start. Above `watermark` it blocks publishers."""

    name = "rabbitmq"

    def __init__(self, kept=(), watermark="512MB", schedulers=2):
        install()
        self._schedulers = schedulers
        self.directory = Path(tempfile.mkdtemp(prefix="farcall-rabbitmq-"))
        self.port, self._distribution, self._mapper = free_ports(3)
        self._processes = []
        for part in ("home", "mnesia", "log"):
            (self.directory / part).mkdir(parents=True)
        (self.directory / "plugins").write_text("[].\n")
        (self.directory / "definitions.json").write_text(json.dumps(_definitions(kept)))
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.local = 127.0.0.1:{self.port}\n"
            f"load_definitions = {self.directory}/definitions.json\n"
            "log.file.level = info\n"
            "disk_free_limit.absolute = 50MB\n"
            f"vm_memory_high_watermark.absolute = {watermark}\n"
        )
        if os.geteuid() == 0:
            _hand_over(self.directory)
        self._start_mapper()
        self.start()

    def _environment(self):
        home = self.directory / "home"
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": "scenarios@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self.directory / "rabbitmq.pid"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +S {self._schedulers}:{self._schedulers} +sbwt none",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper),
        }

    def _run(self, name, *command):
        if os.geteuid() == 0:
            command = ("setpriv", "--reuid", RUN_AS, "--regid", RUN_AS, "--init-groups", *command)
        process = Process(name, command, self._environment(), self.directory / "home")
        self._processes.append(process)
        return process

    def _start_mapper(self):
        mapper = shutil.which("epmd") or "/usr/bin/epmd"
        self._run("epmd", mapper, "-address", "127.0.0.1", "-port", str(self._mapper))
        until(lambda: listening(self._mapper), "epmd listens")

    def start(self):
        self._server = self._run("rabbitmq", PROGRAMS / "rabbitmq-server")

        def ready():
            assert self._server.running(), f"RabbitMQ ended:\n{self._server.output()}"
            # It listens a moment before its commands work.
            return "completed with" in self._server.output() and listening(self.port)

        until(ready, "RabbitMQ is started", 60)

    def pid(self):
        """The process id of the Erlang machine, which the start script wrote to a file."""
        return int((self.directory / "rabbitmq.pid").read_text())

    def restart(self):
        """Kills it as a crash would, and starts it again on the same port."""
        self.kill()
        self.start()

    def leave(self):
        """Stops it in an orderly way, which takes a while. `start` starts it again on the same port."""
        os.kill(self.pid(), signal.SIGTERM)
        self._server.wait(90)

    def kill(self):
        """Ends it as a crash would. `start` starts it again on the same port."""
        self._kill()

    def control(self, *arguments):
        """Runs `rabbitmqctl`."""
        process = self._run("rabbitmqctl", PROGRAMS / "rabbitmqctl", *arguments)
        assert process.wait(60) == 0, process.output()

    def _kill(self):
        # The start script and its children have a process group of their own.
        try:
            os.killpg(self._server.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._server.wait()
        if (self.directory / "rabbitmq.pid").exists():
            until(lambda: not alive(self.pid()), "RabbitMQ has ended")

    def stop(self):
        self._kill()
        for process in self._processes:
            if process.running():
                process.kill()
        shutil.rmtree(self.directory)


def _hand_over(directory):
    """Makes the user that the server runs as the owner of the directory."""
    user = pwd.getpwnam(RUN_AS)
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, user.pw_uid, user.pw_gid)


def _definitions(kept):
    permissions = [(name, rule) for name, rule in USERS.items() if rule is not None]
    return {
        "vhosts": [{"name": "/"}],
        "users": [{"name": name, "password_hash": _hash(name), "tags": ""} for name in USERS],
        "permissions": [
            {"user": name, "vhost": "/", "configure": rule, "write": rule, "read": rule} for name, rule in permissions
        ],
        "topic_permissions": [{"user": "limited", "vhost": "/", "exchange": "limited.topic", "write": "^limited", "read": ".*"}],
        "queues": [{"name": name, "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}} for name in kept],
    }


def _hash(password):
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
