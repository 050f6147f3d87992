"""The commands about a manager on this machine: start, list, stop, restart, delete. It is made by `configure` and left untouched."""

import os
import re
import signal
import subprocess

import pytest
from processes import alive, until
from testbed import binary


class Commands:
    """Somebody with a directory of endpoints who serves the service of the test."""

    def __init__(self, testbed, service):
        self.base = testbed.directory / "endpoints"
        self.environment = testbed.environment(
            FARCALL_SERVICE_URL=service.origin(),
            FARCALL_SYSTEMD_UNITS=testbed.directory,
            GLOBUS_COMPUTE_CLIENT_ID=service.identity[0],
            GLOBUS_COMPUTE_CLIENT_SECRET=service.identity[1],
        )

    def __call__(self, *words, status=0):
        command = [binary("globus-compute-endpoint"), "-c", self.base, *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, done
        return done.stdout + done.stderr

    def status(self, name="mep"):
        return re.search(rf"\| (\w+) +\| {name} ", self("list"))[1]

    def pid(self, name="mep"):
        return int((self.base / name / "daemon.pid").read_text())


@pytest.fixture
def commands(testbed):
    commands = Commands(testbed, testbed.service())
    commands("configure", "--multi-user", "mep")
    yield commands
    commands("stop", "mep")


def test_a_manager_is_listed_and_stopped(commands):
    """Upstream's 3.8 can do neither."""
    assert commands.status() == "Initialized"
    assert "> Endpoint <mep> starting in detached mode." in commands("start", "mep", "--detach")
    assert commands.status() == "Running"
    pid = commands.pid()
    assert "is already active" in commands("start", "mep", "--detach", status=255)
    assert commands.pid() == pid and alive(pid)
    assert "Failed to migrate endpoint: Endpoint 'mep' is already template capable." in commands(
        "migrate-to-template-capable", "mep", "--yes", status=1
    )
    assert commands("stop", "mep") == "> Endpoint <mep> is now stopped\n"
    assert commands.status() == "Stopped"
    assert not alive(pid)
    assert commands("stop", "mep") == "> Endpoint <mep> is not active.\n"


def test_a_killed_manager_is_disconnected_until_it_starts_again(commands):
    commands("start", "mep", "--detach")
    pid = commands.pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: commands.status() == "Disconnected", "it is disconnected", 30)
    commands("start", "mep", "--detach")
    assert commands.status() == "Running" and commands.pid() != pid


def test_a_restart_and_a_deletion(commands):
    commands("start", "mep", "--detach")
    pid = commands.pid()
    assert "> Endpoint <mep> is now stopped\n" in commands("restart", "mep", "--detach")
    assert commands.status() == "Running" and commands.pid() != pid
    assert "cannot" in commands("enable-on-boot", "mep", status=1).lower()
    commands("stop", "mep")
    assert "has been deleted from the web service" in commands("delete", "mep", "--yes")
    assert not (commands.base / "mep").exists()
    commands("configure", "--multi-user", "mep")


def test_the_short_name_of_the_program(tmp_path):
    """As 4.8 and later install it."""
    short = tmp_path / "gce"
    short.symlink_to(binary("globus-compute-endpoint"))
    done = subprocess.run([short, "-c", tmp_path, "version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "Globus Compute endpoint version: 3.8.0\n")
    done = subprocess.run([short, "-c", tmp_path, "configure", "--multi-user", "mep"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and (tmp_path / "mep" / "config.yaml").exists()
