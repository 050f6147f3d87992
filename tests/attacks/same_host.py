"""Attacks by other users of an endpoint's host or of its file system."""

import os
import re
import subprocess
import sys

import environments
from forwarder import CHILDREN, wait_for_the_port
from processes import marked, until
from table import attack, played_elsewhere
from testbed import binary

FENCE = "crates/endpoint/tests/processes/fence.rs"

@attack("another user of the machine", "waits for `farcall up` to die, and takes the ports that its command sends tokens to")
def takes_the_ports(testbed):
    python = environments.python("tests")
    show = 'echo urls $FARCALL_SERVICE_URL $http_proxy; exec "$0" -c "$1"'
    up = [binary("farcall"), "up", "--data-dir", testbed.directory / "data", "--http-listen", "127.0.0.1:0", "--amqp-listen",
          "127.0.0.1:0", "--", "sh", "-c", show, python, CHILDREN]
    process = testbed.start("up", [str(word) for word in up], testbed.environment())
    ports = [int(port) for port in re.findall(r":(\d+)(?= |$)", process.wait_for("^urls .*$")[0])]
    assert len(ports) == 2
    wait_for_the_port(process, ports)
    until(lambda: not marked(testbed.mark), "the endpoint went with it")


# In a network of its own, where port 5000 is free for the attacker.
LISTENS = """
import fcntl, socket, struct, subprocess, sys, threading

# The loopback interface of a new network is down: SIOCGIFFLAGS, IFF_UP, SIOCSIFFLAGS.
with socket.socket() as any_socket:
    request = struct.pack("16sh14x", b"lo", 0)
    (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, 0x8913, request))
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))

def listen(listener):
    while True:
        caller, _ = listener.accept()
        caller.settimeout(2)
        try:
            heard = caller.recv(65536)
        except OSError:
            heard = b""
        print("the stranger heard", heard, flush=True)
        caller.sendall(b"HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
        caller.close()

hosts = sys.argv[1].split(",")
for host in hosts:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 5000), family=family)
    threading.Thread(target=listen, args=[listener], daemon=True).start()
sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""

TASK_USES_THE_SDK = """
import os
from globus_compute_sdk import Executor

def endpoints():
    from globus_compute_sdk import Client

    return [endpoint["name"] for endpoint in Client().get_endpoints()]

print("the command sees", endpoints())
with Executor(endpoint_id=os.environ["FARCALL_ENDPOINT_ID"]) as executor:
    print("a task sees", executor.submit(endpoints).result(60))
"""


def up_beside_a_stranger(testbed, addresses):
    """`farcall up` while another user's program listens on port 5000 of these addresses; `localhost` has two."""
    python = environments.python("sdk-4.19.0")
    hosts = testbed.directory / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")
    # Without root a network of one's own needs a user of one's own.
    alone = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net", "--mount"]
    with_hosts = ["sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts]
    up = [binary("farcall"), "up", "--data-dir", testbed.directory / "data", "--", python, "-c", TASK_USES_THE_SDK]
    done = subprocess.run(
        [str(word) for word in [*alone, *with_hosts, sys.executable, "-c", LISTENS, addresses, *up]],
        env=testbed.environment(python), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )
    assert "the stranger heard" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["the command sees ['local']", "a task sees ['local']"]


@attack("another user of the machine, who has port 5000", "is sent the token of a command or task of `farcall up`")
def has_the_port_of_the_sdk(testbed):
    up_beside_a_stranger(testbed, "127.0.0.1,::1")


@attack("another user of the machine, who has port 5000 of ::1 only", "is sent the token of a command or task of `farcall up`")
def has_the_other_address_of_localhost(testbed):
    up_beside_a_stranger(testbed, "::1")


played_elsewhere(
    "somebody on the endpoint's host",
    "a program with the endpoint's title on its command line, or another endpoint with its number, ends by its `stop`",
    f"{FENCE}::stop_signals_no_other_process",
)
played_elsewhere(
    "somebody on the endpoint's host",
    "a program that names a node's file on its command line ends as a leftover of the endpoint",
    "crates/endpoint/tests/processes/commands.rs::leftover_nodes_are_ended",
)
played_elsewhere(
    "a second process of the endpoint, on another host",
    "takes journal and results from one that still runs, by starting",
    f"{FENCE}::a_process_that_is_refused_changes_no_file",
)
played_elsewhere(
    "a second process of the endpoint, on another host",
    "has results reported as lost that a process which stood still has",
    "tests/faults/test_second_instance.py::test_results_of_a_process_that_stood_still_arrive_once",
)
