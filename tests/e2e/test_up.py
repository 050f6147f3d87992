"""`farcall up`: starts service and endpoint with one command, reuses what runs, and stops without leaving anything."""

import base64
import json
import os
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import environments
import pytest
from processes import alive, marked, until
from testbed import ROOT, binary

FREE = ["--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"]
HELLO = ROOT / "examples" / "hello.py"
GREETING = re.compile(r"Hello world, from Python 3\.\d+\.\d+ on ")


def up(testbed, *arguments, python=None, listen=FREE, **options):
    """The command line of `up` in this testbed's data directory, and its environment."""
    command = [binary("farcall"), "up", "--data-dir", testbed.directory / "data", *listen, *arguments]
    return [str(part) for part in command], testbed.environment(python, **options)


def run(testbed, *arguments, timeout=60, **options):
    command, environment = up(testbed, *arguments, **options)
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.parametrize("release", ["4.19.0", "3.8.0"])
def test_a_command_runs_with_everything_up(testbed, release):
    """The worker's Python is a bare one: what the PATH finds has no package at all."""
    sdk = environments.python(f"sdk-{release}")
    bare = subprocess.run(["python3", "-c", "import dill"], env=testbed.environment(), capture_output=True)
    assert bare.returncode != 0, "the interpreter of this test has packages"
    done = run(testbed, "--", sdk, HELLO)
    assert done.returncode == 0, done.stderr
    assert GREETING.match(done.stdout), done.stdout
    assert done.stdout.count("\n") == 1, "nothing but the command's own output"
    assert not marked(testbed.mark)


FIRST_TRIES = """
import os
from globus_compute_sdk import Executor, ShellFunction

def much():
    return bytes(9_900_000)

with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    shell = executor.submit(ShellFunction("pwd; echo told >&2"))
    print(len(executor.submit(much).result(timeout=60)), repr(shell.result(timeout=60).stderr))
"""


def test_first_tries_meet_no_warning_and_no_limit(testbed):
    """A ShellFunction has a sandbox, and so no warning at the end of its standard error; 9.9 MB come back."""
    done = run(testbed, "--", environments.python("sdk-4.19.0"), "-c", FIRST_TRIES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "9900000 'told\\n'\n"


def test_the_exit_status_is_the_commands(testbed):
    script = 'test -n "$FARCALL_ENDPOINT_ID" && test -n "$FARCALL_AMQP_PORT" && test -n "$FARCALL_SERVICE_URL" || exit 1; '
    assert run(testbed, "--", "sh", "-c", script + "exit 7").returncode == 7
    assert run(testbed, "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    absent = run(testbed, "--", "no-such-program")
    assert absent.returncode == 1 and "cannot run no-such-program" in absent.stderr
    assert not marked(testbed.mark)


def test_a_termination_is_the_commands_to_answer(testbed):
    command, environment = up(testbed, "--", "sh", "-c", "trap 'echo saving; exit 3' TERM; echo works; while :; do sleep 0.1; done")
    process = testbed.start("up", command, environment)
    process.wait_for("works")
    assert process.stop() == 3
    assert "saving" in process.output()
    assert not marked(testbed.mark)


def test_a_termination_ends_everything_that_the_command_has_started(testbed):
    """Its children, and those in sessions of their own, with an empty environment, or deaf to SIGTERM."""
    script = """
    sleep 1000 &
    echo child $!
    setsid env -i sleep 1000 &
    echo child $!
    (setsid sh -c 'trap "" TERM; echo child $$; while :; do sleep 0.1; done' &)
    python3 -c 'import time; time.sleep(1000)'
    """
    command, environment = up(testbed, "--", "sh", "-c", script)
    process = testbed.start("up", command, environment)
    until(lambda: process.output().count("child ") == 3, "the children run")
    children = [int(pid) for pid in re.findall(r"child (\d+)", process.output())]
    assert all(alive(child) for child in children)
    assert process.stop(60) == 128 + signal.SIGTERM
    assert [child for child in children if alive(child)] == []
    assert not marked(testbed.mark)


def test_a_shell_that_waits_for_its_child_is_not_waited_for(testbed):
    """bash answers a signal when the child that it waits for has ended."""
    command, environment = up(testbed, "--", "bash", "-c", "trap 'echo saving; exit 3' TERM; echo works; sleep 1000; exit 4")
    process = testbed.start("up", command, environment)
    process.wait_for("works")
    assert process.stop(60) == 3
    assert "saving" in process.output()


def test_what_a_command_leaves_behind_ends_with_it(testbed):
    done = run(testbed, "--", "sh", "-c", "setsid env -i sleep 1000 > /dev/null 2>&1 & echo $!; exit 7")
    assert done.returncode == 7
    assert not alive(int(done.stdout))


class Stranger:
    """Another local user's program that listens on an address and keeps what it is sent."""

    def __init__(self, host, port=0):
        self.listener = socket.create_server((host, port))
        self.port = self.listener.getsockname()[1]
        self.heard = b""
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            with caller:
                caller.settimeout(2)
                try:
                    self.heard += caller.recv(65536) or b"a connection"
                except OSError:
                    self.heard += b"a connection"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def test_a_stranger_at_the_same_port_of_another_address_hears_nothing(testbed):
    """The service listens on 127.0.0.2 only, a stranger on the same ports of 127.0.0.1."""
    with Stranger("127.0.0.1") as http, Stranger("127.0.0.1") as amqp:
        listen = ["--http-listen", f"127.0.0.2:{http.port}", "--amqp-listen", f"127.0.0.2:{amqp.port}"]
        done = run(testbed, "--", environments.python("sdk-4.19.0"), HELLO, listen=listen)
        assert (http.heard, amqp.heard) == (b"", b"")
        assert done.returncode == 0 and GREETING.match(done.stdout), done.stderr


PROXIES = """
import json
import os

from globus_compute_sdk import Executor

def proxies():
    import os

    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}

with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    print(json.dumps([proxies(), executor.submit(proxies).result(60)]))
"""


def test_the_command_and_the_workers_have_the_same_proxies(testbed):
    """The forwarder takes the place of the user's proxy for plain HTTP; the others stay. `no_proxy` keeps what does not lead the
    SDK past the forwarder. The endpoint reaches the service all the same."""
    script = testbed.directory / "proxies.py"
    script.write_text(PROXIES)
    outside = {"http_proxy": "http://192.0.2.1:9", "https_proxy": "http://192.0.2.1:9", "no_proxy": "localhost,.example.org"}
    for before, after in (({}, {}), (outside, {"https_proxy": "http://192.0.2.1:9", "no_proxy": ".example.org"})):
        done = run(testbed, "--", environments.python("sdk-4.19.0"), script, **before)
        assert done.returncode == 0, done.stderr
        command, worker = json.loads(done.stdout)
        assert re.fullmatch(r"http://farcall:[\w-]{43}@127\.0\.0\.1:\d+", command.pop("http_proxy")) and command == after
        worker.pop("http_proxy")
        assert worker == after


PLAIN_CALLS = """
import os
import sys

from globus_compute_sdk import Executor

def call(url):
    import urllib.request

    request = urllib.request.Request(url, headers={"Authorization": "Bearer of-somebody", "X-By": "a program"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status

with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    for url in sys.argv[1:]:
        print(call(url), executor.submit(call, url).result(60))
"""


class Heard(BaseHTTPRequestHandler):
    """Answers every request, and keeps its target and headers with the server. Inside a tunnel it answers itself."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        self.server.heard.append((self.path, self.headers))
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        self.server.heard.append((self.path, self.headers))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def web_server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Heard)
    server.heard = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_plain_calls_of_the_command_and_of_tasks_reach_other_hosts(testbed, web_server):
    url = f"http://127.0.0.1:{web_server.server_port}/of?this=machine"
    done = run(testbed, "--", environments.python("sdk-4.19.0"), "-c", PLAIN_CALLS, url)
    assert done.stdout == "200 200\n", done.stderr
    assert [target for target, _ in web_server.heard] == ["/of?this=machine"] * 2
    for _, headers in web_server.heard:
        assert headers["X-By"] == "a program" and "Proxy-Authorization" not in headers
        assert headers["Authorization"] == "Bearer of-somebody", "the service was never sent it"


def test_plain_calls_go_by_the_proxy_that_the_user_has(testbed, web_server):
    outside = {"http_proxy": f"http://me:secret%21@127.0.0.1:{web_server.server_port}"}
    url = "http://web.example.invalid/a?b"
    done = run(testbed, "--", environments.python("sdk-4.19.0"), "-c", PLAIN_CALLS, url, **outside)
    assert done.stdout == "200 200\n", done.stderr
    assert [target for target, _ in web_server.heard] == [url] * 2
    for _, headers in web_server.heard:
        assert headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:secret!").decode()
        assert headers["Host"] == "web.example.invalid" and headers["Authorization"] == "Bearer of-somebody"


TUNNEL = """
import base64, http.client, os, sys, urllib.parse

proxy = urllib.parse.urlsplit(os.environ["http_proxy"])
password = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
connection = http.client.HTTPConnection(proxy.hostname, proxy.port)
connection.set_tunnel(sys.argv[1], 8080, headers={"Proxy-Authorization": "Basic " + password})
connection.request("GET", "/inside", headers={"Authorization": "Bearer of-somebody"})
print(connection.getresponse().status)
"""


def test_tunnels_go_by_the_proxy_that_the_user_has(testbed, web_server):
    outside = {"http_proxy": f"http://me:secret%21@127.0.0.1:{web_server.server_port}"}
    done = run(testbed, "--", environments.python("tests"), "-c", TUNNEL, "web.example.invalid", **outside)
    assert done.stdout == "200\n", done.stderr
    (target, opening), (path, inside) = web_server.heard
    assert (target, path) == ("web.example.invalid:8080", "/inside")
    assert opening["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:secret!").decode()
    assert inside["Authorization"] == "Bearer of-somebody" and "Proxy-Authorization" not in inside


def test_what_a_terminal_sends_is_ignored_under_nohup(testbed):
    """A command inherits that a signal is ignored, and outlives the session in which it was started."""
    command, environment = up(testbed, "--", "sed", "-n", "s/SigIgn:.//p", "/proc/self/status")
    shell = ["sh", "-c", 'trap "" HUP QUIT; exec "$@"', "sh"]
    done = subprocess.run(
        [*shell, *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    ignored = int(done.stdout, 16)
    assert all(ignored >> (it - 1) & 1 for it in (signal.SIGHUP, signal.SIGQUIT)), done.stdout


LIMITS = """
import os, resource
from globus_compute_sdk import Executor

def limits():
    import resource
    return resource.getrlimit(resource.RLIMIT_NOFILE)

print(*resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)
with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    print(*executor.submit(limits).result())
with open("/proc/%d/stat" % os.getppid()) as guard:
    ours = guard.read().rpartition(")")[2].split()[1]
with open(f"/proc/{ours}/limits") as ours:
    print(*[line.split()[3:5] for line in ours if line.startswith("Max open files")][0])
"""


def test_open_files_are_limited_for_users_as_they_were_and_for_us_by_the_hard_limit(testbed):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    command, environment = up(testbed, "--", environments.python("sdk-4.19.0"), "-c", LIMITS)
    command = ["bash", "-c", 'ulimit -Sn 300; exec "$@"', "bash", *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    theirs = f"300 {hard}"
    assert done.stdout.splitlines() == [theirs, theirs, f"{hard} {hard}"], "COMMAND, a task, and we"


def test_a_shell_evaluates_what_it_prints(testbed):
    command, environment = up(testbed)
    process = testbed.start("up", command, environment)
    process.wait_for("tail -f ")
    hint, evaluate, hello, logs = process.output().splitlines()
    path = f"{environments.python('sdk-4.19.0').parent}:{environment['PATH']}"
    shell = subprocess.run(
        ["bash", "-euc", f"{evaluate}\n{hello}"], env=environment | {"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert shell.returncode == 0, shell.stderr
    assert GREETING.match(shell.stdout)
    _tail, _follow, *paths = shlex.split(logs)
    service_log, endpoint_log = (Path(path).read_text() for path in paths)
    assert "the service is ready" in service_log and "Endpoint begins" in endpoint_log

    again = run(testbed)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [evaluate, hello, logs], "what runs is found"
    assert again.stderr.splitlines() == [hint]
    assert process.running()
    written = (testbed.directory / "data" / "up" / "environment").read_text()
    assert run(testbed, "--", "sh", "-c", "echo found").stdout == "found\n"
    assert process.running(), "what was found is left running"
    assert (testbed.directory / "data" / "up" / "environment").read_text() == written, "its forwarder still runs"

    process._popen.send_signal(signal.SIGINT)
    assert process.wait() == 0
    assert not marked(testbed.mark)
    assert not (testbed.directory / "data" / "up" / "environment").exists(), "it names a port that anybody may take now"


def test_the_next_one_is_the_same_endpoint_and_identity(testbed):
    said = [run(testbed, "--", "sh", "-c", "echo $FARCALL_ENDPOINT_ID $GLOBUS_COMPUTE_CLIENT_ID").stdout for _ in range(2)]
    assert said[0] == said[1] and len(said[0].split()) == 2


def test_a_person_owns_what_the_client_makes(testbed):
    """The person has no password until somebody gives one; the client acts for them."""

    def administer(*words, **options):
        command = [binary("farcall"), "user", *words, "--data-dir", testbed.directory / "data"]
        done = subprocess.run(command, env=testbed.environment(), capture_output=True, text=True, timeout=30, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    whoami = ["--", binary("globus-compute-endpoint"), "whoami", "--linked-identities"]
    done = run(testbed, *whoami, COLUMNS=300)
    assert done.returncode == 0, done.stderr
    [person] = json.loads(administer("list", "--output", "json"))
    client = json.loads((testbed.directory / "data" / "up" / "identity.json").read_text())
    assert person["username"] == client["person"] and person["username"].endswith("@localhost")
    assert person["administrator"] and not person["password"]
    assert person["id"] in done.stdout and client["client_id"] in done.stdout
    administer("reset", person["username"], input="correct horse battery\n")
    assert json.loads(administer("list", "--output", "json"))[0]["password"]
    # What the client held has ended with the old password; it logs in anew by itself.
    assert run(testbed, *whoami).returncode == 0


def test_an_ordinary_user_needs_no_root(testbed):
    if os.geteuid() != 0:
        return  # every other test of this file shows it
    command, environment = up(testbed, "--", environments.python("sdk-4.19.0"), HELLO)
    ordinary = ["unshare", "--user", "--map-user=65534", "--map-group=65534", "--"]
    done = subprocess.run(
        [*ordinary, *command], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and GREETING.match(done.stdout), done.stderr


def test_killed_it_leaves_nothing_running_and_nothing_broken(testbed):
    command, environment = up(testbed)
    process = testbed.start("up", command, environment)
    process.wait_for("tail -f ")
    assert len(marked(testbed.mark)) > 1
    process.kill()
    until(lambda: not marked(testbed.mark), "the endpoint went with it")
    done = run(testbed, "--", environments.python("sdk-4.19.0"), HELLO)
    assert done.returncode == 0 and GREETING.match(done.stdout), done.stderr


def test_killed_it_ends_the_command_which_holds_the_ports_until_then(testbed):
    """Its tokens go to these ports, which another user's program could take."""
    command, environment = up(testbed, "--", "sh", "-c", "echo urls $FARCALL_SERVICE_URL $http_proxy; echo command $$; exec sleep 1000")
    process = testbed.start("up", command, environment)
    pid = int(process.wait_for(r"^command (\d+)")[1])
    ports = [int(port) for port in re.findall(r":(\d+)(?= |$)", process.wait_for("^urls .*$")[0])]
    assert len(ports) == 2
    held = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout.splitlines()
    for port in ports:
        [line] = [line for line in held if f"127.0.0.1:{port} " in line]
        assert f"pid={pid}," in line, line
    process.kill()
    until(lambda: not alive(pid), "the command has ended", 10)
    until(lambda: not marked(testbed.mark), "the endpoint went with it")


def test_ports_that_are_taken_are_no_obstacle_unless_they_were_asked_for(testbed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        done = run(testbed, listen=["--http-listen", address])
    assert done.returncode == 1
    assert f"cannot listen on {address}" in done.stderr
    # The usual ones: whether somebody has them or not.
    assert run(testbed, "--", "sh", "-c", "echo up", listen=[]).stdout == "up\n"


def test_an_endpoint_that_cannot_start_is_told_with_its_reason(testbed):
    lonely = testbed.directory / "lonely"
    lonely.mkdir()
    shutil.copy(binary("farcall"), lonely)
    command, environment = up(testbed)
    command[0] = str(lonely / "farcall")
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "--endpoint-binary" in done.stderr

    assert run(testbed, "--", "true").returncode == 0
    (testbed.directory / "data" / "up" / "endpoints" / "local" / "config.yaml").write_text("engine: {type: NoEngine}\n")
    done = run(testbed, "--", "true")
    assert done.returncode == 1 and "NoEngine" in done.stderr, done.stderr
    assert not marked(testbed.mark)
