"""`farcall doctor` verifies the service's certificate as Python does: both accept or both refuse each case of a table."""

import ssl
import subprocess

import pytest
from certificate_authority import CURVE, openssl
from testbed import binary

HOST = "compute.example.org"
CA = {
    "basicConstraints": "critical, CA:TRUE",
    "keyUsage": "critical, keyCertSign, cRLSign",
    "subjectKeyIdentifier": "hash",
    "authorityKeyIdentifier": "keyid:always",
}
LEAF = {
    "basicConstraints": "critical, CA:FALSE",
    "keyUsage": "critical, digitalSignature",
    "extendedKeyUsage": "serverAuth",
    "subjectAltName": f"DNS:{HOST}",
    "subjectKeyIdentifier": "hash",
    "authorityKeyIdentifier": "keyid:always",
}

# What is special about root, intermediate and certificate (None leaves an extension out), what the doctor says, and whether
# only Python 3.13 and later mind it.
ROOT, BETWEEN, OWN = range(3)
FAULTS = {
    "good": ({}, {}, {}, None, False),
    "no extendedKeyUsage at all": ({}, {}, {"extendedKeyUsage": None}, None, False),
    "no keyUsage at all": ({}, {}, {"keyUsage": None}, None, False),
    "key encipherment": ({}, {}, {"keyUsage": "critical, keyEncipherment"}, None, False),
    "no names": ({}, {}, {"subjectAltName": None}, "has no subjectAltName", False),
    "for clients": ({}, {}, {"extendedKeyUsage": "clientAuth"}, "lacks serverAuth", False),
    "for any purpose": ({}, {}, {"extendedKeyUsage": "anyExtendedKeyUsage"}, "lacks serverAuth", False),
    "for signatures of documents": ({}, {}, {"keyUsage": "critical, nonRepudiation"}, "lacks digitalSignature", False),
    "an intermediate for clients": ({}, {"extendedKeyUsage": "clientAuth"}, {}, "lacks serverAuth", False),
    "a root for clients": ({"extendedKeyUsage": "clientAuth"}, {}, {}, "lacks serverAuth", False),
    "an intermediate that is no authority": ({}, {"basicConstraints": "critical, CA:FALSE", "keyUsage": None}, {}, "lack CA:TRUE", False),
    "an intermediate that may not sign": ({}, {"keyUsage": "critical, digitalSignature"}, {}, "lacks keyCertSign", False),
    "a root that may not sign": ({"keyUsage": "critical, digitalSignature"}, {}, {}, "lacks keyCertSign", False),
    "a root without keyUsage": ({"keyUsage": None}, {}, {}, "has no keyUsage", True),
    "an intermediate without keyUsage": ({}, {"keyUsage": None}, {}, "has no keyUsage", True),
    "a root that is no critical authority": ({"basicConstraints": "CA:TRUE"}, {}, {}, "are not critical", True),
    "no authorityKeyIdentifier": ({}, {}, {"authorityKeyIdentifier": None}, "has no authorityKeyIdentifier", True),
    "an intermediate without authorityKeyIdentifier": ({}, {"authorityKeyIdentifier": None}, {}, "has no authorityKeyIdentifier", True),
    "a root without authorityKeyIdentifier": ({"authorityKeyIdentifier": None}, {}, {}, None, False),
    "a root without subjectKeyIdentifier": ({"subjectKeyIdentifier": None, "authorityKeyIdentifier": None}, {"authorityKeyIdentifier": None}, {}, "has no subjectKeyIdentifier", True),
    "a signing key of no authority": ({}, {}, {"keyUsage": "critical, digitalSignature, keyCertSign"}, "has keyCertSign", True),
    "several": ({"keyUsage": None}, {}, {"subjectAltName": None}, "has no subjectAltName", False),
}


def extensions(usual, special):
    # OpenSSL adds identifiers of keys by itself.
    none = {"subjectKeyIdentifier": "none", "authorityKeyIdentifier": "none"}
    lines = [f"{name} = {value or none[name]}" for name, value in (usual | special).items() if value or name in none]
    return "\n".join(["[req]", "distinguished_name = none", "prompt = no", "[none]", "[ext]", *lines, ""])


def issue(directory, special):
    """root.pem and chain.pem with key.pem."""
    keys = [CURVE, CURVE, CURVE]
    for at, (name, subject, usual) in enumerate([("root", "A root", CA), ("between", "An intermediate", CA), ("own", HOST, LEAF)]):
        (directory / f"{name}.cnf").write_text(extensions(usual, special[at]))
        request = ["req", "-new", *keys[at], "-subj", f"/CN={subject}", "-keyout", f"{name}.key", "-out", f"{name}.csr"]
        openssl(directory, *request)
        signed = ["x509", "-req", "-in", f"{name}.csr", "-days", "99", "-extfile", f"{name}.cnf", "-extensions", "ext", "-out", f"{name}.pem"]
        signer = ["-signkey", "root.key"] if at == ROOT else ["-CA", f"{['root', 'between'][at - 1]}.pem", "-CAkey", f"{['root', 'between'][at - 1]}.key", "-CAcreateserial"]
        openssl(directory, *signed, *signer)
    (directory / "chain.pem").write_text((directory / "own.pem").read_text() + (directory / "between.pem").read_text())


def python_takes(directory, strict):
    """Whether a client in Python comes through a handshake."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "chain.pem", directory / "own.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(directory / "root.pem")
    # As the SDK's HTTP library has it.
    client.hostname_checks_common_name = False
    if strict:
        # As `ssl.create_default_context` has it since 3.13.
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    else:
        client.verify_flags &= ~(ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(back, there, server_hostname=HOST), server.wrap_bio(there, back, server_side=True)]
    done = set()
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
    assert len(done) == 2
    return True


def doctor(directory):
    data = directory / "data"
    data.mkdir(mode=0o700)
    (data / "farcall.yaml").write_text(
        f"http: {{listen: '127.0.0.1:0', public_names: ['{HOST}:443']}}\namqp: {{listen: '127.0.0.1:0', public_host: {HOST}}}\n"
        f"tls: {{certificate: {directory}/chain.pem, key: {directory}/own.key}}\n"
    )
    done = subprocess.run([binary("farcall"), "doctor", "--data-dir", data, "--ca", directory / "root.pem"], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize("fault", FAULTS)
def test_a_certificate_is_verified_as_python_does(tmp_path, fault):
    *special, said, strict = FAULTS[fault]
    issue(tmp_path, special)
    taken = python_takes(tmp_path, False), python_takes(tmp_path, True)
    assert taken == (said is None or strict, said is None), "Python thinks otherwise"
    status, printed = doctor(tmp_path)
    assert status == (0 if said is None else 1), printed
    if said is None:
        assert f"ok       trust: clients that trust the authority in {tmp_path}/root.pem trust it" in printed, printed
        assert f"ok       certificate: it is for {HOST}" in printed, printed
        assert f"ok       clients: they go to https://{HOST} (`farcall connect https://{HOST}` says how)" in printed, printed
        return
    assert said in printed and "-> have it issued with `" in printed, printed
    assert ("Python 3.13 or later refuse it" in printed) == (strict or fault == "several"), printed
    # What the next line refutes is not called ok.
    assert not [line for line in printed.splitlines() if line.startswith("ok") and any(of in line for of in ("certificate:", "trust:", "clients:"))], printed
