"""A private certificate authority, and a service with TLS and a certificate of that authority."""

import socket
import subprocess

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def openssl(directory, *arguments):
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def certify(directory):
    """Makes `ca.pem`, and for localhost `certificate.pem` and `key.pem`."""
    openssl(directory, "req", "-x509", *CURVE, "-days", "2", "-subj", "/CN=A private authority", "-keyout", "ca.key",
            "-out", "ca.pem")
    openssl(directory, "req", *CURVE, "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "request.pem")
    (directory / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl(directory, "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names", "-out", "certificate.pem")


def private_service(testbed, directory, *settings):
    """A service whose one port speaks HTTP and AMQP inside TLS, its certificate from a private authority."""
    certify(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    service = testbed.service("private", settings=[
        f"http.tls_listen={address}",
        f"amqp.tls_listen={address}",
        f"tls.certificate={directory / 'certificate.pem'}",
        f"tls.key={directory / 'key.pem'}",
        "amqp.public_host=localhost",
        *settings,
    ])
    service.tls_port = port
    service.tls_url = f"https://localhost:{port}"
    service.authority = directory / "ca.pem"
    return service
