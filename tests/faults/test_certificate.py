"""The service's certificate expires: the endpoint says so and waits; with a new certificate it continues by itself."""

import os
import signal
import socket
import subprocess

import pytest
from processes import until

DOUBLE = """
import sys

def double(x):
    return x + x

with executor(sys.argv[1]) as ex:
    report(ex.submit(double, 21).result(timeout=90))
"""


def openssl(directory, *arguments, days_ago=None):
    command = ["openssl", *arguments]
    if days_ago:
        command = ["faketime", "-f", f"-{days_ago}d", *command]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def authority(tmp_path):
    """An authority, and two certificates of the same key: `good` and `expired`."""
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(tmp_path, "req", "-x509", *ec, "-days", "60", "-subj", "/CN=An authority", "-keyout", "ca.key", "-out", "ca.pem", days_ago=20)
    openssl(tmp_path, "req", *ec, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem")
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost\n")
    for name, days_ago in (("good", None), ("expired", 10)):
        openssl(tmp_path, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.pem", days_ago=days_ago)
    return tmp_path


def test_the_certificate_runs_out_and_is_renewed(testbed, authority):
    shown = authority / "certificate.pem"

    def show(name):
        # At once, as whoever renews certificates does it.
        (authority / "next").write_bytes((authority / f"{name}.pem").read_bytes())
        os.replace(authority / "next", shown)

    show("good")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    service = testbed.service(settings=[
        f"http.tls_listen={address}", f"amqp.tls_listen={address}", "amqp.public_host=localhost",
        f"tls.certificate={shown}", f"tls.key={authority / 'key.pem'}",
    ])
    variables = {"FARCALL_SERVICE_URL": f"https://localhost:{address.split(':')[1]}", "SSL_CERT_FILE": authority / "ca.pem"}
    endpoint = testbed.endpoint(service, variables={name: str(value) for name, value in variables.items()})
    sdk = service.sdk("4.19.0")
    assert sdk.run(DOUBLE, endpoint.id) == [42]

    def log():
        return (endpoint.directory / endpoint.name / "endpoint.log").read_text()

    show("expired")
    service.stop()
    service.start()
    until(lambda: "certificate expired" in log(), "it says why there is no connection", 60)
    assert endpoint.process.running()
    # Whoever starts one now is told the same.
    other = type(endpoint)(testbed, service, "other", variables=endpoint.variables)
    other.configure()
    started = other.run("start", "other")
    assert started.returncode == 75 and "certificate expired" in started.stderr, (started.returncode, started.stderr)

    waiting = sdk.start(DOUBLE, endpoint.id)
    show("good")
    os.kill(service.process.pid, signal.SIGHUP)
    assert waiting.finish() == [42]
    assert endpoint.process.running()
