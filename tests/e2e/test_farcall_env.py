"""`farcall env`: the unmodified SDK reaches a service by variables alone. A shell evaluates the output of each case.
`test_connect.py` tests the safe way to a service on another machine.

localhost:5000 is tested in a network namespace, where that port is free.
"""

import os
import subprocess
import sys

import environments
import pytest
from certificate_authority import private_service
from testbed import binary

RELEASES = ["4.19.0", "3.8.0"]

EXECUTE = """
import sys

def double(x):
    return x + x

with executor(sys.argv[1]) as ex:
    report(ex.submit(double, 21).result(timeout=90))
"""


@pytest.fixture(scope="module")
def private(shared_testbed, tmp_path_factory):
    return private_service(shared_testbed, tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def endpoint(shared_testbed, private):
    """Ours, which talks to the shared port inside TLS only."""
    variables = environment(private.tls_url, "--insecure", "--ca", private.authority)
    return shared_testbed.endpoint(private, "inside-tls", variables=variables)


def environment(*arguments, exempt="localhost"):
    """What a shell holds after evaluating the output of `farcall env`, beyond what it held before."""
    program = 'eval "$("$@")" && exec env -0'
    before = {"PATH": os.environ["PATH"], "HOME": "/home/of somebody", "HTTP_PROXY": "http://192.0.2.1:1", "NO_PROXY": exempt, "no_proxy": exempt}
    done = subprocess.run(
        ["sh", "-c", program, "sh", str(binary("farcall")), "env", *map(str, arguments)],
        env=before, capture_output=True, text=True, check=True,
    )
    held = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert held.pop("GLOBUS_COMPUTE_USER_DIR").startswith("/home/of somebody/.farcall/localhost")
    return {name: value for name, value in held.items() if name not in ("PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_")}


@pytest.mark.parametrize("release", RELEASES)
def test_through_a_private_authority_on_one_port(private, release, reached):
    reports = reached(private, release, environment(private.tls_url, "--insecure", "--ca", private.authority))
    assert reports == [42]


@pytest.mark.parametrize("release", RELEASES)
def test_as_a_proxy_at_any_port(private, release, reached):
    reports = reached(private, release, environment("--data-dir", private.data))
    assert reports == [42]


@pytest.fixture
def reached(shared_testbed, endpoint):
    """Runs a task by an SDK that has nothing but this environment, and returns what it reported."""

    def run(service, release, variables):
        client_id, client_secret = service.identity
        sdk = service.sdk(release)
        base = service.testbed.environment(
            sdk.python,
            GLOBUS_COMPUTE_CLIENT_ID=client_id,
            GLOBUS_COMPUTE_CLIENT_SECRET=client_secret,
            GLOBUS_COMPUTE_USER_DIR=shared_testbed.directory / f"user-{release}-{len(shared_testbed.processes)}",
        )
        sdk.variables = base | variables
        return sdk.run(EXECUTE, endpoint.id)

    return run


def test_the_endpoint_is_inside_tls_too(private, endpoint):
    assert endpoint.environment()["FARCALL_SERVICE_URL"] == private.tls_url
    assert endpoint.online()


@pytest.mark.parametrize("release", RELEASES)
def test_where_the_sdk_looks_by_itself(testbed, release):
    """`localhost:5000`, as `farcall serve` listens without being told; a proxy that is there does not come in between."""
    variables = environment("http://localhost:5000", exempt="")
    assert variables["HTTP_PROXY"] == "http://192.0.2.1:1"
    assert "http_proxy" not in variables
    python = environments.python(f"sdk-{release}")
    script = testbed.directory / "alone.py"
    script.write_text(ALONE)
    # Without root a network of one's own needs a user of one's own.
    network = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    done = subprocess.run(
        [*network, sys.executable, str(script), str(binary("farcall")), str(testbed.directory / "data"), str(python)],
        env=testbed.environment() | variables,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "a function was registered"


ALONE = '''
import fcntl, json, os, socket, struct, subprocess, sys

farcall, data, python = sys.argv[1:]
# The loopback interface of a new network is down: SIOCGIFFLAGS, IFF_UP, SIOCSIFFLAGS.
with socket.socket() as any_socket:
    request = struct.pack("16sh14x", b"lo", 0)
    (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, 0x8913, request))
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))
service = subprocess.Popen([farcall, "serve", "--data-dir", data], stdout=subprocess.PIPE, text=True)
try:
    assert service.stdout.readline() == "farcall is ready: http://127.0.0.1:5000 amqp://127.0.0.1:5672\\n"
    added = subprocess.check_output([farcall, "client", "add", "me", "--data-dir", data, "--output", "json"])
    client = json.loads(added)
    environment = os.environ | {
        "GLOBUS_COMPUTE_CLIENT_ID": client["client_id"],
        "GLOBUS_COMPUTE_CLIENT_SECRET": client["client_secret"],
    }
    program = """
from globus_compute_sdk import Client

def double(x):
    return x + x

assert Client().register_function(double)
print("a function was registered")
"""
    subprocess.run([python, "-c", program], env=environment, check=True, timeout=60)
finally:
    service.terminate()
    assert service.wait(20) == 0
'''
