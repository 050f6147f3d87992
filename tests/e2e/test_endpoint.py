"""Our endpoint as its owner and as a manager endpoint start it."""

import json
import os

import pytest

from processes import alive, until
from scene import Endpoint



@pytest.fixture(scope="module")
def release():
    """What an endpoint's owner does, he does once: the SDK is only the witness."""
    return "4.19.0"


DOUBLE = """
import sys

def double(x):
    return 2 * x

with executor(sys.argv[1]) as ex:
    tell(ex.submit(double, 21).result(timeout=60))
"""


def test_started_by_credentials_on_standard_input(shared_scene, service, sdk):
    """As a manager endpoint starts a user endpoint: it asks no web service for anything."""
    endpoint = Endpoint(shared_scene, service, "by-credentials")
    registered = service.rest().post(
        "/v3/endpoints",
        {"endpoint_name": "by-credentials", "metadata": {"endpoint_version": "3.8.0", "python_version": "3.11.7"}},
    )
    document = {
        "amqp_creds": registered,
        "config": json.dumps({"engine": {"type": "GlobusComputeEngine", "max_workers_per_node": 1}}),
        "ep_info": {"posix_ppid": os.getpid()},
    }
    environment = shared_scene.environment(endpoint.python)
    endpoint.directory.mkdir(exist_ok=True)
    endpoint.process = shared_scene.start(
        "by-credentials", endpoint.command("start", "by-credentials", "--die-with-parent"), environment, json.dumps(document)
    )
    endpoint.id = registered["endpoint_id"]
    until(endpoint.online, "the endpoint is online", 60)
    assert sdk.run(DOUBLE, endpoint.id) == [42]
    endpoint.stop()
    assert not endpoint.online()


def test_detached_listed_and_stopped(shared_scene, service, sdk):
    endpoint = Endpoint(shared_scene, service, "detached")
    endpoint.configure()
    config = endpoint.directory / "detached" / "config.yaml"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"detach_endpoint": True}))

    started = endpoint.run("start", "detached")
    assert started.returncode == 0, started.stdout + started.stderr
    endpoint.id = json.loads((endpoint.directory / "detached" / "endpoint.json").read_text())["endpoint_id"]
    pid = int((endpoint.directory / "detached" / "daemon.pid").read_text())
    assert alive(pid)
    until(endpoint.online, "the endpoint is online", 60)
    assert sdk.run(DOUBLE, endpoint.id) == [42]

    listed = endpoint.run("list").stdout
    [line] = [line for line in listed.splitlines() if "detached" in line]
    assert endpoint.id in line and "Running" in line

    stopped = endpoint.run("stop", "detached")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not alive(pid)
    assert not endpoint.online()
    [line] = [line for line in endpoint.run("list").stdout.splitlines() if "detached" in line]
    assert "Stopped" in line

    # A second start keeps the endpoint's id and takes what was submitted while it was away.
    waiting = sdk.start(DOUBLE, endpoint.id)
    started = endpoint.run("start", "detached")
    assert started.returncode == 0, started.stdout + started.stderr
    assert waiting.finish() == [42]
    assert endpoint.run("stop", "detached").returncode == 0


def test_a_worker_without_dill(shared_scene, service):
    """A stock Python and nothing else runs what the stock SDK sends by default."""
    endpoint = shared_scene.endpoint(service, "without-dill", python="tests")
    told = service.sdk("4.19.0").run(
        """
        import sys

        def describe(numbers, *, unit="m"):
            import math

            def rounded(x):
                return round(x, 1)

            return {"sum": rounded(math.fsum(numbers)), "unit": unit}

        def has_dill():
            try:
                import dill
            except ImportError:
                return False
            return True

        with executor(sys.argv[1]) as ex:
            tell(ex.submit(has_dill).result(timeout=60))
            tell(ex.submit(describe, [0.5, 1.5], unit="s").result(timeout=60))
        """,
        endpoint.id,
    )
    assert told == [False, {"sum": 2.0, "unit": "s"}]


def test_another_identity_finds_nothing(shared_scene, service, sdk):
    """An endpoint is its owner's: to anybody else it does not exist."""
    endpoint = shared_scene.endpoint(service, "owned")
    stranger = service.sdk("4.19.0", service.add_client("stranger"))
    [text] = stranger.run(
        """
        import sys

        with executor(sys.argv[1]) as ex:
            tell(str(ex.submit(print).exception(timeout=60)))
        """,
        endpoint.id,
    )
    assert "ENDPOINT_NOT_FOUND" in text
