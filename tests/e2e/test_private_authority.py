"""Our endpoint with a service and broker over TLS on one port, whose certificate is from a private authority."""

import json
import subprocess

import pytest

import certificate_authority
from processes import until
from testbed import Endpoint


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def private(shared_testbed, tmp_path_factory):
    """Its answers to registrations name a port of the broker's at which nobody is."""
    return certificate_authority.private_service(shared_testbed, tmp_path_factory.mktemp("authority"), "amqp.public_port=9")


class Trusting(Endpoint):
    """An endpoint that finds the service by its own configuration, and has nothing of it in its environment."""

    def __init__(self, testbed, service, name, **config):
        super().__init__(testbed, service, name)
        self.config = config
        self.said = {}
        self.directory.mkdir(exist_ok=True)

    def environment(self):
        client_id, client_secret = self.service.identity
        return self.testbed.environment(
            self.python, GLOBUS_COMPUTE_CLIENT_ID=client_id, GLOBUS_COMPUTE_CLIENT_SECRET=client_secret, **self.said
        )

    def configure(self):
        directory = self.directory / self.name
        directory.mkdir()
        whole = {"detach_endpoint": False, "engine": self.engine} | self.config
        (directory / "config.yaml").write_text(json.dumps(whole))
        self.testbed.endpoints.append(self)

    def log(self):
        return (self.directory / self.name / "endpoint.log").read_text()


def test_the_configuration_names_service_authority_and_port(shared_testbed, private):
    """`amqp_port` goes before the port that the registration names."""
    endpoint = Trusting(
        shared_testbed,
        private,
        "configured",
        service_url=private.tls_url,
        ca_certificates=str(private.authority),
        amqp_port=private.tls_port,
    )
    endpoint.configure()
    # Online is what the service calls an endpoint whose heartbeats come through the broker.
    endpoint.start()
    endpoint.stop()


def test_configure_writes_it_down(shared_testbed, private):
    endpoint = Trusting(shared_testbed, private, "written")
    done = endpoint.run(
        "configure", "written", "--service-url", private.tls_url, "--ca-certificates", str(private.authority)
    )
    assert done.returncode == 0, done.stderr
    rendered = json.loads(endpoint.run("render", "written").stdout)
    assert (rendered["service_url"], rendered["ca_certificates"]) == (private.tls_url, str(private.authority))
    config = endpoint.directory / "written" / "config.yaml"
    text = config.read_text()
    # The port that the service names is nobody's; ours is.
    wrong = endpoint.run("doctor", "written")
    assert "ok   reachability" in wrong.stdout and "ok   identity" in wrong.stdout, wrong.stdout
    assert "FAIL broker        localhost:9: " in wrong.stdout, wrong.stdout
    config.write_text(f"{text}amqp_port: {private.tls_port}\n")
    right = endpoint.run("doctor", "written")
    assert right.returncode == 0 and f"ok   broker        localhost:{private.tls_port} accepts connections" in right.stdout, right.stdout
    # Without the authority.
    config.write_text(text.replace("ca_certificates", "#"))
    doubt = endpoint.run("doctor", "written")
    assert doubt.returncode == 1 and "FAIL reachability" in doubt.stdout, doubt.stdout
    assert "certificate" in doubt.stdout, doubt.stdout


def test_the_sites_file_names_service_and_authority(shared_testbed, private):
    site = shared_testbed.directory / "site.yaml"
    site.write_text(json.dumps({"service_url": private.tls_url, "ca_certificates": str(private.authority)}))
    endpoint = Trusting(shared_testbed, private, "by-site", amqp_port=private.tls_port)
    endpoint.said = {"FARCALL_SITE_FILE": site}
    endpoint.configure()
    endpoint.start()
    endpoint.stop()


def test_upstreams_names_in_the_environment(shared_testbed, private):
    """GLOBUS_SDK_VERIFY_SSL is a file of authorities, or says whether certificates count at all."""
    endpoint = Trusting(shared_testbed, private, "by-environment", service_url=private.tls_url, amqp_port=private.tls_port)
    endpoint.configure()
    for said in ({}, {"GLOBUS_SDK_VERIFY_SSL": "true"}):
        endpoint.said = said
        refused = endpoint.run("start", "by-environment")
        assert refused.returncode == 75 and "certificate" in refused.stderr, (said, refused.stderr)
    endpoint.said = {"GLOBUS_SDK_VERIFY_SSL": "/nowhere/authority.pem"}
    missing = endpoint.run("start", "by-environment")
    assert missing.returncode == 78 and "/nowhere/authority.pem" in missing.stderr, missing.stderr
    endpoint.said = {"GLOBUS_SDK_VERIFY_SSL": private.authority}
    endpoint.start()
    endpoint.stop()
    # Upstream's switch is for HTTPS. The broker, which is handed every task, has to show who it is.
    endpoint.said = {"GLOBUS_SDK_VERIFY_SSL": "false"}
    endpoint.process = shared_testbed.start(
        "unverified", endpoint.command("start", endpoint.name), endpoint.environment()
    )
    endpoint.process.wait_for("no connection to the broker")
    until(lambda: not endpoint.online(), "the endpoint is offline", 10)
    endpoint.process.kill()


def test_a_user_endpoint_believes_whom_its_configuration_names(shared_testbed, private):
    registered = private.rest().post(
        "/v3/endpoints", {"endpoint_name": "given", "metadata": {"endpoint_version": "3.8.0"}}
    )
    for name in ("task_queue_info", "result_queue_info", "heartbeat_queue_info", "command_queue_info"):
        # Registered over plain HTTP; the credentials are good on every port.
        registered[name]["connection_url"] = registered[name]["connection_url"].replace("amqp://", "amqps://")
    endpoint = Trusting(shared_testbed, private, "given")
    config = {"ca_certificates": str(private.authority), "amqp_port": private.tls_port, "engine": endpoint.engine}
    endpoint.process = shared_testbed.start(
        "given",
        endpoint.command("_start-user-endpoint", "given"),
        endpoint.environment(),
        json.dumps({"amqp_creds": registered, "config": json.dumps(config)}),
    )
    shared_testbed.endpoints.append(endpoint)
    endpoint.id = registered["endpoint_id"]
    until(endpoint.online, "it is online", 60)
    # Another that can't start tells the service so by the same way; of this one nobody hears until its next heartbeat.
    config |= {"endpoint_setup": "echo it went wrong; exit 3"}
    failed = subprocess.run(
        [str(part) for part in endpoint.command("_start-user-endpoint", "given-again")],
        input=json.dumps({"amqp_creds": registered, "config": json.dumps(config)}),
        env=endpoint.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode == 78 and "it went wrong" in failed.stderr, failed.stderr
    until(lambda: not endpoint.online(), "the service heard of it", 20)
    endpoint.stop()


def test_authorities_that_are_none_are_said_to_be(shared_testbed, private):
    wrong = shared_testbed.directory / "wrong.pem"
    wrong.write_text("no certificate\n")
    endpoint = Trusting(shared_testbed, private, "wrong", service_url=private.tls_url, ca_certificates=str(wrong))
    endpoint.configure()
    refused = endpoint.run("start", "wrong")
    assert (refused.returncode, refused.stderr) == (78, f"Error: {wrong} holds no certificates in PEM form\n")
