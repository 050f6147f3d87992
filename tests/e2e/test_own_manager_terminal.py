"""What an administrator of our manager sees: the terminal, the log, refusals to start, credentials, the tree of processes; and the
manager of an ordinary user."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import local_users
import pytest
from processes import until
from test_login import sign_in
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

CREDENTIALS = ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET")
CLOCK = r"    ----> (\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\r"

TASK = """
    import json, sys

    def about():
        import os

        return [os.getuid(), os.getppid(), sorted(os.environ)]

    with executor(sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
        report(ex.submit(about).result(timeout=100))
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


class OfAPerson(local_users.OwnManager):
    """A manager whose administrator logs in, with a place of their own for it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.directory = self.directory.parent / "with-a-login"

    def environment(self):
        environment = super().environment() | {"GLOBUS_COMPUTE_USER_DIR": str(self.directory)}
        for name in CREDENTIALS:
            environment.pop(name, None)
        return environment | {"COLUMNS": "200"}


def configured(testbed, service, mapping, kind=local_users.OwnManager, **options):
    manager = kind(testbed, service, mapping, **options)
    testbed.endpoints.append(manager)
    manager.configure()
    return manager


def above(pid, wanted):
    """The process among those wanted that this one descends from."""
    while pid not in wanted:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


def registrations(service):
    return len(re.findall(r'method=(?:PUT|POST) path="/v3/endpoints(?:/[0-9a-f-]{36})?" ', service.process.output()))


def on_a_terminal(testbed, manager, *words):
    return testbed.terminal(manager.command("start", manager.name, *words), manager.environment())


def test_the_terminal(shared_testbed, service):
    """The first start asks for a login, the next don't; the id, the time, the log with colours and without."""
    service.add_person("root@example.org", "correct horse battery staple")
    manager = configured(shared_testbed, service, {}, OfAPerson, name="prod_gpu_large")
    first = on_a_terminal(shared_testbed, manager)
    asked = first.read(
        r"^> Endpoint Manager initialization\nPlease authenticate with Globus here:\n-+\n(http\S+)\n-+\n\n"
        r"Enter the resulting Authorization Code here: "
    )
    first.type(sign_in(asked[1], "root@example.org", "correct horse battery staple"))
    shown = first.read(r"        >>> Multi-User Endpoint ID: \x1b\[104m([0-9a-f-]{36})\x1b\[0m <<<\n")
    times = lambda: set(re.findall(CLOCK, first.output()))  # noqa: E731
    until(lambda: len(times()) >= 3, "the time is rewritten every second", 15)
    # In place, and the cursor is hidden meanwhile.
    assert "\n" not in first.output()[shown.end() :] and first.output().count("\x1b[?25l") == 1
    first.type("\x1c", end="")
    status, screen = first.finish()
    assert status == 0 and screen.endswith("\x1b[?25h"), screen
    log = manager.log_text()
    assert f"========== Endpoint Manager begins: {shown[1]}\n" in log and f"---------- Endpoint Manager ends: {shown[1]}\n" in log
    assert "---->" not in log and " DEBUG " not in log

    second = on_a_terminal(shared_testbed, manager, "--log-to-console", "--debug")
    bright = rf"\x1b\[93m{shown[1]}\x1b\[m"
    second.read(rf"\n========== Endpoint Manager begins: {bright}\n")
    second.read(rf"        >>> Multi-User Endpoint ID: \x1b\[104m{shown[1]}\x1b\[0m <<<\n")
    second.read(rf"\x1b\[4m\S+Z\x1b\[m \x1b\[3m\x1b\[37m INFO\x1b\[m \x1b\[37mglobus_compute_endpoint::manage::run: the manager runs manager={bright}")
    second.read(r"\x1b\[3m\x1b\[2;37;40mDEBUG\x1b\[m \x1b\[2;37;40mglobus_compute_endpoint::manage::run: with these settings")
    second.interrupt()
    status, screen = second.finish()
    assert status == 0 and "authenticate" not in screen, screen
    log = manager.log_text()
    assert log.count(f"========== Endpoint Manager begins: {shown[1]}\n") == 2 and " DEBUG " in log and "\x1b" not in log

    plain = on_a_terminal(shared_testbed, manager, "--log-to-console", "--debug", "--no-color")
    plain.read(rf"Z  INFO globus_compute_endpoint::manage::run: the manager runs manager={shown[1]}")
    plain.read(CLOCK)
    plain.interrupt()
    status, screen = plain.finish()
    assert status == 0 and "\x1b[4m" not in screen and " DEBUG " in screen

    piped = shared_testbed.start("piped", manager.command("start", manager.name, "--log-to-console", "--debug"), manager.environment())
    piped.wait_for(rf"Z  INFO globus_compute_endpoint::manage::run: the manager runs manager={shown[1]}")
    time.sleep(2)
    assert piped.stop() == 0
    assert " DEBUG " in piped.output()
    for of_a_terminal in ("\x1b", "---->", ">>>"):
        assert of_a_terminal not in piped.output()


def test_what_keeps_it_from_starting(shared_testbed, service, users):
    alicia = users["alicia"]
    manager = local_users.OwnManager(shared_testbed, service, {}, name="unfit")
    # Where a program that isn't root finds it.
    manager.directory = Path(alicia.pw_dir) / "endpoints"
    manager.configure()
    subprocess.run(["chown", "-R", f"{alicia.pw_uid}:{alicia.pw_gid}", manager.directory], check=True)
    mapping = manager.home / "mapping.json"
    two = [
        *("setpriv", f"--reuid={alicia.pw_uid}", f"--regid={alicia.pw_gid}", "--init-groups"),
        *("--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid"),
    ]
    bound = ["setpriv", "--bounding-set=-setuid,-setgid"]
    required = "Identity mapping required.  (Hint: identity_mapping_config_path)"

    def start(status, said, *become, **config):
        manager.write_config(**config)
        command = [str(part) for part in (*become, *manager.command("start", manager.name))]
        done = subprocess.run(
            command, env=manager.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status and said in done.stderr, done

    before = registrations(service)
    start(72, required, identity_mapping_config_path=None)
    start(72, required, *two, identity_mapping_config_path=None)
    start(72, f"{manager.home}/nowhere.json", identity_mapping_config_path=str(manager.home / "nowhere.json"))
    os.chown(mapping, 0, 0)
    mapping.chmod(0o600)
    start(77, "mapping.json", *two)
    mapping.write_text("[{")
    start(78, "mapping.json")
    mapping.write_text("[]")
    start(77, "root without the capabilities CAP_SETUID and CAP_SETGID", *bound)
    start(1, "detach_endpoint\n  extra fields not permitted", detach_endpoint=True)
    assert registrations(service) == before and not (manager.home / "endpoint.json").exists()


def test_credentials_come_by_the_environment_and_go_no_further(shared_testbed, service, users, people):
    """As the unit of systemd passes them, too. Without them the same directory is refused."""
    mapping = local_users.ids(people, "roberto")
    manager = configured(shared_testbed, service, mapping, name="credentials", config={"display_name": "X"})
    units = shared_testbed.directory / "units"
    units.mkdir()
    both = {name: manager.environment()[name] for name in CREDENTIALS}
    without = {name: value for name, value in manager.environment().items() if name not in CREDENTIALS}
    before = registrations(service)
    refused = subprocess.run(
        [str(part) for part in manager.command("start", manager.name)],
        env=without,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 77 and "globus-compute-endpoint login" in refused.stderr, refused
    assert registrations(service) == before

    (manager.home / "client.env").write_text("".join(f"{name}={value}\n" for name, value in both.items()))
    command = [str(part) for part in manager.command("enable-on-boot", manager.name)]
    subprocess.run(command, env=without | {"FARCALL_SYSTEMD_UNITS": str(units)}, check=True, capture_output=True, timeout=60)
    unit = dict(line.split("=", 1) for line in (units / f"globus-compute-endpoint-{manager.name}.service").read_text().splitlines() if "=" in line)
    file = Path(unit["EnvironmentFile"].removeprefix("-"))
    from_file = dict(line.split("=", 1) for line in file.read_text().splitlines())
    manager.process = shared_testbed.start("by-its-unit", shlex.split(unit["ExecStart"]), without | from_file)
    manager.id = until(manager._registered, "it is registered", 60)
    until(manager.online, "it is online", 60)

    ((uid, parent, variables),) = service.sdk("4.19.0", people["roberto"]).run(TASK, manager.id, "{}")
    assert uid == users["roberto"].pw_uid and not set(CREDENTIALS) & set(variables)
    secret = both["GLOBUS_COMPUTE_CLIENT_SECRET"].encode()
    processes = local_users.processes_of("roberto")
    assert manager.children()[0] in processes
    for pid in processes:
        for what in ("environ", "cmdline"):
            assert secret not in Path(f"/proc/{pid}/{what}").read_bytes()

    # The name that people see: a new one, none in the file, an empty one.
    shown = lambda: service.rest().get(f"/v2/endpoints/{manager.id}")["display_name"]  # noqa: E731
    assert shown() == "X"
    for config, expected in (({"display_name": "Y"}, "Y"), ({"display_name": None}, "Y"), ({"display_name": ""}, "")):
        begun = manager.log_text().count("the manager runs")
        manager.write_config(**config)
        os.kill(manager.process.pid, signal.SIGHUP)
        until(lambda: manager.log_text().count("the manager runs") > begun, "it runs again")
        assert (shown() or "") == expected


class Forwarder:
    """Another port of the broker, which counts the connections."""

    def __init__(self, port):
        self.connections = 0
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    @staticmethod
    def _copy(one, other):
        try:
            while octets := one.recv(65536):
                other.sendall(octets)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()


def test_each_has_its_own_port_of_the_broker(shared_testbed, service, people):
    """`amqp_port` of the manager is the manager's, that of the template the user endpoint's."""
    with Forwarder(service.amqp_port) as of_manager, Forwarder(service.amqp_port) as of_template:
        template = f"{local_users.TEMPLATE}\n    amqp_port: {of_template.port}\n"
        config = {"amqp_port": of_manager.port}
        manager = configured(shared_testbed, service, local_users.ids(people, "roberto"), name="ports", template=template, config=config)
        manager.start()
        # Commands and heartbeats share one connection.
        assert (of_manager.connections, of_template.connections) == (1, 0)
        service.sdk("4.19.0", people["roberto"]).run(TASK, manager.id, "{}")
        assert (of_manager.connections, of_template.connections) == (1, 1)
        manager.stop()


DEBUGGED = """
    {% if quiet is not defined %}
    debug: true
    {% endif %}
    engine:
      type: GlobusComputeEngine
      max_workers_per_node: 1
      provider:
        type: LocalProvider
        init_blocks: 1
        min_blocks: 0
        max_blocks: 1
"""

# Of the administrators' guide.
TREE = r"""ps -eF --forest | perl -ne'if (/(\| +\| +)\\_ Globus Compute Endpoint \*/) { $pre = $1; $pre =~ s/\|/\\|/g; print; while (<>) { last if !/$pre/; print}}'"""


def test_the_tree_of_processes_and_the_logs_of_its_leaves(shared_testbed, service, users, people):
    """The lines for the shell are those of the administrators' guide."""
    mapping = local_users.ids(people, "harper", "tory")
    manager = configured(shared_testbed, service, mapping, name="tree", template=DEBUGGED)
    # Two processes above it have younger siblings, as on a real machine: the guide's line looks for that.
    script = '( ( "$@"; : ) & sleep 600; : ) & sleep 600; :'
    shell = shared_testbed.start("tree", ["sh", "-c", script, "sh", *manager.command("start", manager.name, "--debug")], manager.environment())
    manager.process = shell
    manager.id = until(manager._registered, "it is registered", 60)
    until(manager.online, "it is online", 60)
    pid = int(re.match(r"\d+", (manager.home / "daemon.pid").read_text())[0])
    for name, config in (("harper", '{"quiet": true}'), ("tory", "{}")):
        service.sdk("4.19.0", people[name]).run(TASK, manager.id, config)
    logs = {name: next(Path(users[name].pw_dir).glob(".globus_compute/uep.*/endpoint.log")) for name in ("harper", "tory")}
    wide = os.environ | {"COLUMNS": "1000"}
    tree = subprocess.run(["bash", "-c", TREE], env=wide, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    (root,) = [at for at, line in enumerate(tree) if f"Globus Compute Endpoint *({manager.id}, tree)" in line]
    owner, own_pid, *_ = tree[root].split()
    assert (owner, int(own_pid)) == ("root", pid)
    below = tree[root + 1 :]
    for name, log in logs.items():
        own = log.parent.name.rpartition(".")[2]
        (leaf,) = [line for line in below if re.match(rf"{name} +\d+ +{pid} .*\\_ .*Globus Compute Endpoint \({own}, uep\.{manager.id}\.{own}\)", line)]
        assert leaf.index("\\_") > tree[root].index("\\_")

    # The manager's --debug is its own; a template's is its user endpoints'.
    assert " DEBUG " in manager.log_text()
    assert " DEBUG " not in logs["harper"].read_text() and "Begin Compute" not in logs["harper"].read_text()
    shown = subprocess.run(
        ["sed", "-n", "/Begin Compute/,/End Compute/p", logs["tory"]], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    lines = shown.splitlines()
    (count,) = re.search(r" DEBUG .*Begin Compute endpoint configuration \((\d+) lines\):$", lines[0]).groups()
    assert lines[-1].strip() == "End Compute endpoint configuration" and len(lines) == int(count) + 2
    assert "  | debug: true" in lines
    assert "amqp" not in shown and "password" not in shown and not re.search(r"://\S+:\S+@", logs["tory"].read_text())

    os.kill(pid, signal.SIGTERM)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the manager ends", 20)
    os.killpg(shell.pid, signal.SIGTERM)
    shell.wait()


@pytest.mark.long
def test_the_title_of_a_user_endpoint_with_a_long_task_counts_down(shared_testbed, service, users, people):
    template = local_users.TEMPLATE + "    idle_heartbeats_hard: 6\n"
    manager = configured(shared_testbed, service, local_users.ids(people, "harper"), name="long-task", template=template)
    manager.start()
    busy = service.sdk("4.19.0", people["harper"]).start(
        """
        import sys

        def slow():
            import time

            time.sleep(20)
            return "slept"

        with executor(sys.argv[1], user_endpoint_config={"soft": 1}) as ex:
            report(ex.submit(slow).result(timeout=100))
        """,
        manager.id,
    )
    (leaf,) = until(manager.children, "the user endpoint runs", 60)
    title = rb"\[possibly idle; shut down in 20s\] Globus Compute Endpoint \("
    until(lambda: re.match(title, Path(f"/proc/{leaf}/cmdline").read_bytes()), "the title counts down", 40)
    assert busy.finish() == ["slept"]


class MadeByConfigure(local_users.PersonalManager):
    """A manager of an ordinary user, its files as `configure` makes them but for the place of the programs."""

    def configure(self):
        self.made = self.run("configure", "--multi-user", self.name)
        path = [local_users.python().parent, "/usr/bin", "/bin", binary("globus-compute-endpoint").parent]
        (self.home / "user_environment.yaml").write_text(json.dumps({"PATH": ":".join(map(str, path))}))


def test_the_manager_of_an_ordinary_user(shared_testbed, service, users, people):
    """Beside root's manager, at a terminal: made, started with its mapping and without, restarted in place, and stopped."""
    root = configured(shared_testbed, service, local_users.ids(people, "jessica"), name="of-root")
    root.start()
    jessica = service.sdk("4.19.0", people["jessica"])
    ((uid, of_root, _),) = jessica.run(TASK, root.id, "{}")
    assert uid == users["jessica"].pw_uid

    tory = users["tory"]
    manager = MadeByConfigure(shared_testbed, service, tory, people["tory"], name="my_second_endpoint")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    assert manager.made.returncode == 0, manager.made.stderr
    assert manager.made.stdout.startswith("Created multi-user profile for endpoint named <my_second_endpoint>\n")
    private, read_by_all = ("config.yaml", "example_identity_mapping_config.json"), ("user_config_schema.json", "user_config_template.yaml.j2")
    for names, mode in ((private, 0o600), (read_by_all, 0o644)):
        for name in names:
            stat = (manager.home / name).stat()
            assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (tory.pw_uid, tory.pw_gid, mode), name
    assert (manager.home.stat().st_uid, manager.home.stat().st_mode & 0o777) == (tory.pw_uid, 0o711)

    ignored = "identity mapping configuration will be ignored"
    manager.start()
    assert ignored in manager.log_text() and ignored in manager.process.output()
    manager.stop()
    # As the users' guide has it.
    path = shlex.quote(str(manager.home))
    guide = f"rm {path}/example_identity_mapping_config.json; sed -i '/identity_mapping/d' {path}/config.yaml"
    subprocess.run(["sh", "-c", guide], check=True, timeout=60)
    os.chown(manager.home / "config.yaml", tory.pw_uid, tory.pw_gid)
    warned = manager.log_text().count(ignored)

    template = manager.home / "user_config_template.yaml.j2"
    template.write_text(template.read_text() + "\ndisplay_name: {{ shown|default('') }}\nheartbeat_period: 5\n")
    manager.process = terminal = on_a_terminal(shared_testbed, manager)
    terminal.read(rf"        >>> Multi-User Endpoint ID: \x1b\[104m{manager.id}\x1b\[0m <<<\n")
    assert ignored not in terminal.output()
    until(manager.online, "it is online", 60)
    assert manager.log_text().count(ignored) == warned
    sdk = service.sdk("4.19.0", people["tory"])
    found = [sdk.run(TASK, manager.id, config)[0] for config in ("{}", '{"shown": "other"}')]
    pid = int(re.match(r"\d+", (manager.home / "daemon.pid").read_text())[0])
    children = lambda: {*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())}  # noqa: E731
    assert {uid for uid, _, _ in found} == {tory.pw_uid} and len({node for _, node, _ in found}) == 2
    assert {above(node, {1, *children()}) for _, node, _ in found} == children()
    for _, _, variables in found:
        assert not set(CREDENTIALS) & set(variables)

    # A template that fails does so at the stage whose number is four lower than root's.
    working = template.read_text()
    template.write_text(working + "\n{{ missing }}\n")
    (text,) = sdk.run(
        """
        import sys

        with executor(sys.argv[1], user_endpoint_config={"shown": "third"}) as ex:
            report(str(ex.submit(int).exception(timeout=100)))
        """,
        manager.id,
    )
    assert "missing" in text and "422" in text, text
    manager.wait_for_log(r"Command return code: 74 ")
    template.write_text(working)

    # In place again, under the same number, with the same children.
    before, begun = children(), manager.log_text().count("the manager runs")
    os.kill(pid, signal.SIGHUP)
    until(lambda: manager.log_text().count("the manager runs") > begun, "it runs again")
    assert children() == before
    assert above(sdk.run(TASK, manager.id, "{}")[0][1], {1, *before}) in before

    # The terminal is still its own.
    heads = lambda: terminal.output().split(">>> Multi-User Endpoint ID")  # noqa: E731
    until(lambda: len(heads()) == 3 and re.search(CLOCK, heads()[2]), "it shows id and time again", 20)
    terminal.interrupt()
    status, screen = terminal.finish()
    assert status == 0 and screen.endswith("\x1b[?25h"), screen
    assert not any(Path(f"/proc/{it}").exists() for it in before)
    assert f"---------- Endpoint Manager ends: {manager.id}" in manager.log_text()
    # Root's went on.
    assert jessica.run(TASK, root.id, "{}")[0][1] == of_root
    root.stop()
