"""One terminal session with every command of upstream's guide for single-user endpoints, compared with its pages.

Runs of blanks compare as one, because the pages indent; ids are placeholders there."""

import re
import subprocess

import pytest

from processes import alive, until
from testbed import Endpoint, binary

ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

# What the pages show, command by command. `<ID>` and `<DIR>` stand for what differs from one machine to the next.
CONFIGURED = """
Created profile for endpoint named <my_first_endpoint>

    Configuration file: <DIR>/my_first_endpoint/config.yaml
"""

LISTED_FIRST = """
+--------------------------------------+--------------+--------------------+
|             Endpoint ID              |    Status    |   Endpoint Name    |
+======================================+==============+====================+
| None                                 | Initialized  | my_first_endpoint  |
+--------------------------------------+--------------+--------------------+
"""

CONFIG = """\
display_name: null
engine:
  max_workers_per_node: 1
  type: GlobusComputeEngine
  provider:
    type: LocalProvider
    init_blocks: 1
    max_blocks: 1
    min_blocks: 0
"""

STARTED = "Starting endpoint; registered ID: <ID>"
RUNNING = "| <ID> | Running | my_first_endpoint |"
STOPPED = "> Endpoint <my_first_endpoint> is now stopped"
LOG = "========== Endpoint begins: <ID>"

ENABLED = """
Systemd service installed. Run
   sudo systemctl enable globus-compute-endpoint-my_first_endpoint.service --now
to enable the service and start the endpoint.
"""

DISABLED = """
Run the following to disable on-boot-persistence:
   systemctl stop globus-compute-endpoint-my_first_endpoint
   systemctl disable globus-compute-endpoint-my_first_endpoint
   rm <UNITS>/globus-compute-endpoint-my_first_endpoint.service
"""


@pytest.fixture
def release():
    return "4.19.0"


def plain(text):
    return " ".join(text.split())


class Session:
    def __init__(self, testbed, endpoint, units):
        self.testbed = testbed
        self.endpoint = endpoint
        self.units = units

    def run(self, *words, status=0):
        environment = self.endpoint.environment() | {"FARCALL_SYSTEMD_UNITS": str(self.units)}
        ended, screen = self.testbed.terminal(self.endpoint.command(*words), environment).finish()
        assert ended == status, screen
        return screen

    def shows(self, page, *words, status=0):
        """The command shows what the page says."""
        screen = self.run(*words, status=status)
        found = re.sub(ID, "<ID>", plain(screen)).replace(str(self.endpoint.directory), "<DIR>")
        found = found.replace(str(self.units), "<UNITS>")
        assert plain(page) in found, f"{words} showed\n{screen}\nand the page says\n{page}"
        return screen


def test_a_session_at_a_terminal(testbed):
    service = testbed.service()
    endpoint = Endpoint(testbed, service, "my_first_endpoint")
    units = testbed.directory / "units"
    units.mkdir()
    session = Session(testbed, endpoint, units)
    directory = endpoint.directory / "my_first_endpoint"

    session.shows("Globus Compute endpoint version: 3.8.0", "version")
    session.shows("No endpoints configured! (Hint: globus-compute-endpoint configure)", "list")
    session.shows(CONFIGURED, "configure", "my_first_endpoint")
    # Tables are drawn to the letter.
    assert LISTED_FIRST.strip() in session.run("list")
    assert (directory / "config.yaml").read_text() == CONFIG

    screen = session.shows(STARTED, "start", "my_first_endpoint")
    registered = re.search(ID, screen)[0]
    session.shows(RUNNING, "list")
    pid = int((directory / "daemon.pid").read_text())
    title = open(f"/proc/{pid}/cmdline").read()
    assert title.startswith(f"Globus Compute Endpoint ({registered}, my_first_endpoint)")
    assert LOG.replace("<ID>", registered) in (directory / "endpoint.log").read_text()
    session.shows("Endpoint 'my_first_endpoint' is already active", "start", "my_first_endpoint", status=255)
    session.shows(STOPPED, "stop", "my_first_endpoint")
    assert not alive(pid)

    # By signal, either of two; and by the id.
    for number in (3, 15):
        session.shows(STARTED, "restart", registered)
        pid = int((directory / "daemon.pid").read_text())
        subprocess.run(["kill", f"-{number}", str(pid)], check=True)
        until(lambda: not alive(pid), "it stops", 30)
        session.shows("| <ID> | Stopped | my_first_endpoint |", "list")
    session.shows(STARTED, "start", "my_first_endpoint")
    pid = int((directory / "daemon.pid").read_text())
    subprocess.run(["kill", "-9", str(pid)], check=True)
    until(lambda: not alive(pid), "it is gone", 30)
    session.shows("| <ID> | Disconnected | my_first_endpoint |", "list")
    session.shows(STARTED, "restart", "my_first_endpoint")
    session.shows(STOPPED, "stop", registered)

    # In the foreground, ended by Ctrl-C.
    (directory / "config.yaml").write_text(f"detach_endpoint: false\n{CONFIG}")
    runs = (directory / "endpoint.log").read_text().count("the endpoint runs")
    foreground = testbed.terminal(endpoint.command("start", "my_first_endpoint"), endpoint.environment())
    foreground.read(STARTED.replace("<ID>", registered))
    until(lambda: (directory / "endpoint.log").read_text().count("the endpoint runs") > runs, "it runs", 60)
    foreground.interrupt()
    assert foreground.finish()[0] == 0
    session.shows("| <ID> | Stopped | my_first_endpoint |", "list")
    (directory / "config.yaml").write_text(CONFIG)

    # On boot, with the configuration as it was made.
    session.shows(ENABLED, "enable-on-boot", "my_first_endpoint")
    session.shows("already exists", "enable-on-boot", "my_first_endpoint", status=1)
    session.shows(DISABLED, "disable-on-boot", "my_first_endpoint")

    # What the page says of a list without enough serializers.
    (directory / "config.yaml").write_text(
        "engine:\n   allowed_serializers: [globus_compute_sdk.serialize.DillCodeSource]\n"
    )
    session.shows(
        "Error: 1 validation error for UserEndpointConfigModel engine Deserialization allowlists must contain at least "
        "one code and one data deserializer/wildcard (got: ['globus_compute_sdk.serialize.DillCodeSource']) "
        "(type=value_error)",
        "start",
        "my_first_endpoint",
        status=1,
    )
    (directory / "config.yaml").write_text(CONFIG)

    # Two questions: no is the answer that changes nothing.
    for answer, status in (("n", 1), ("y", 0)):
        environment = endpoint.environment()
        delete = testbed.terminal(endpoint.command("delete", "my_first_endpoint"), environment)
        delete.read(r"Are you sure you want to delete endpoint < my_first_endpoint >\? \[y/N\]: ")
        delete.type(answer)
        ended, screen = delete.finish()
        assert ended == status, screen
        assert directory.exists() == (answer == "n")
    assert f"> Endpoint {registered} has been deleted from the web service" in screen
    session.shows("No endpoints configured!", "list")


def test_the_unit_is_one_that_systemd_takes(testbed):
    service = testbed.service()
    endpoint = Endpoint(testbed, service, "a name-with.all_letters")
    endpoint.name = "name-with.all_letters"
    units = testbed.directory / "units"
    units.mkdir()
    endpoint.configure()
    done = subprocess.run(
        [str(part) for part in endpoint.command("enable-on-boot", endpoint.name)],
        env=endpoint.environment() | {"FARCALL_SYSTEMD_UNITS": str(units)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    [unit] = units.iterdir()
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    # Other units of this machine may have trouble of their own.
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert not complaints, complaints
    assert "--foreground" in unit.read_text() and "EnvironmentFile=-" in unit.read_text()


def test_it_hears_the_service(testbed):
    """The credentials of a registration open the endpoint's command queue, too."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, "hears", workers=1)
    log = (endpoint.directory / "hears" / "endpoint.log").read_text()
    assert "connected to the broker" in log and "the endpoint can't receive commands" not in log


def test_helpers_get_what_they_need(testbed):
    """`doctor` says what is wrong, `globus-compute-diagnostic` collects, and no secret is told."""
    service = testbed.service()
    endpoint = Endpoint(testbed, service, "ep")
    endpoint.configure()
    good = endpoint.run("doctor", "ep")
    assert good.returncode == 0, good.stdout
    for what in ("configuration", "interpreter", "service", "reachability", "clock", "identity", "broker"):
        assert re.search(rf"^ok   {what}", good.stdout, re.M), good.stdout
    config = endpoint.directory / "ep" / "config.yaml"
    whole = config.read_text()
    config.write_text('{"engine": {"type": "GlobusComputeEngine", "python": "/nowhere/python3"}}')
    bad = endpoint.run("doctor", "ep")
    assert bad.returncode == 1 and "FAIL interpreter" in bad.stdout, bad.stdout
    config.write_text(whole)
    service.stop()
    away = endpoint.run("doctor", "ep", "--output", "json", timeout=120)
    assert away.returncode == 1 and '"what": "reachability",\n    "good": false' in away.stdout, away.stdout

    link = testbed.directory / "globus-compute-diagnostic"
    link.symlink_to(binary("globus-compute-endpoint"))
    secret = service.identity[1]
    told = subprocess.run(
        [str(link), "--print-only"],
        env=endpoint.environment() | {"GLOBUS_COMPUTE_USER_DIR": str(endpoint.directory)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert "== Diagnostic: Endpoints ==" in told.stdout and "config.yaml ==" in told.stdout
    assert secret not in told.stdout
