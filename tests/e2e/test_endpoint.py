"""Our endpoint as its owner and as a manager endpoint start it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from processes import alive, marked, until
from testbed import Endpoint



@pytest.fixture(scope="module")
def release():
    """What an endpoint's owner does, he does once: the SDK is only the witness."""
    return "4.19.0"


DOUBLE = """
import sys

def double(x):
    return 2 * x

with executor(sys.argv[1]) as ex:
    report(ex.submit(double, 21).result(timeout=60))
"""


def test_started_by_credentials_on_standard_input(shared_testbed, service, sdk):
    """As a manager endpoint starts a user endpoint: it asks no web service for anything."""
    endpoint = Endpoint(shared_testbed, service, "by-credentials")
    registered = service.rest().post(
        "/v3/endpoints",
        {"endpoint_name": "by-credentials", "metadata": {"endpoint_version": "3.8.0", "python_version": "3.11.7"}},
    )
    document = {
        "amqp_creds": registered,
        "config": json.dumps({"engine": {"type": "GlobusComputeEngine", "max_workers_per_node": 1}}),
        "ep_info": {"posix_ppid": os.getpid()},
    }
    environment = shared_testbed.environment(endpoint.python)
    endpoint.directory.mkdir(exist_ok=True)
    endpoint.process = shared_testbed.start(
        "by-credentials", endpoint.command("start", "by-credentials", "--die-with-parent"), environment, json.dumps(document)
    )
    endpoint.id = registered["endpoint_id"]
    until(endpoint.online, "the endpoint is online", 60)
    assert sdk.run(DOUBLE, endpoint.id) == [42]
    endpoint.stop()
    until(lambda: not endpoint.online(), "the endpoint is offline", 10)


def test_detached_listed_and_stopped(shared_testbed, service, sdk):
    endpoint = Endpoint(shared_testbed, service, "detached")
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
    until(lambda: not endpoint.online(), "the endpoint is offline", 10)
    [line] = [line for line in endpoint.run("list").stdout.splitlines() if "detached" in line]
    assert "Stopped" in line

    # A second start keeps the endpoint's id and takes what was submitted while it was away.
    waiting = sdk.start(DOUBLE, endpoint.id)
    started = endpoint.run("start", "detached")
    assert started.returncode == 0, started.stdout + started.stderr
    assert waiting.finish() == [42]
    assert endpoint.run("stop", "detached").returncode == 0


def test_a_worker_without_dill(shared_testbed, service):
    """A stock Python and nothing else runs what the stock SDK sends by default."""
    endpoint = shared_testbed.endpoint(service, "without-dill", python="tests")
    reports = service.sdk("4.19.0").run(
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
            report(ex.submit(has_dill).result(timeout=60))
            report(ex.submit(describe, [0.5, 1.5], unit="s").result(timeout=60))
        """,
        endpoint.id,
    )
    assert reports == [False, {"sum": 2.0, "unit": "s"}]


def test_another_identity_finds_nothing(shared_testbed, service, sdk):
    """An endpoint is its owner's: to anybody else it does not exist."""
    endpoint = shared_testbed.endpoint(service, "owned")
    stranger = service.sdk("4.19.0", service.add_client("stranger"))
    [text] = stranger.run(
        """
        import sys

        with executor(sys.argv[1]) as ex:
            report(str(ex.submit(print).exception(timeout=60)))
        """,
        endpoint.id,
    )
    assert "ENDPOINT_NOT_FOUND" in text


def test_stop_remote_ends_it_wherever_it_runs(shared_testbed, service):
    """From another computer: the service cuts it off, and refuses it for a while."""
    endpoint = shared_testbed.endpoint(service, "far")
    here = Endpoint(shared_testbed, service, "near")
    here.directory = shared_testbed.directory / "another-home"
    here.configure()
    (here.directory / "near" / "endpoint.json").write_text(json.dumps({"endpoint_id": endpoint.id}))
    stopped = here.run("stop", "--remote", "near")
    assert (stopped.returncode, stopped.stderr) == (0, "> Endpoint <near> is not active.\n")
    assert endpoint.process.wait(60) == 0
    assert "no new credentials: Endpoint registration blocked." in (endpoint.directory / "far" / "endpoint.log").read_text()
    refused = here.run("start", "near")
    assert refused.returncode == 69 and refused.stderr.startswith("Endpoint registration blocked.  ["), refused.stderr


SLEEP = """
import sys

def sleep(path):
    import os, time
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)

with executor(sys.argv[1]) as ex:
    ex.submit(sleep, sys.argv[2]).result()
"""


def test_a_start_after_a_crash_ends_nodes_and_workers(testbed, release):
    """A node that can't notice the crash, because it was stopped in its tracks, and the worker that it feeds."""
    service = testbed.service()
    endpoint = testbed.endpoint(service, "crashes", workers=1)
    began = testbed.directory / "began"
    client = service.sdk(release).start(SLEEP, endpoint.id, str(began))
    until(lambda: began.exists() and began.read_text(), "the task runs", 60)
    client.process.kill()
    worker = int(began.read_text())
    [node] = [pid for pid, line in marked(testbed.mark).items() if " node " in line and not line.startswith("/bin/sh")]
    os.kill(node, signal.SIGSTOP)
    endpoint.kill()
    endpoint.start()
    path = endpoint.directory / "crashes" / "endpoint.log"
    until(lambda: path.read_text().count("the endpoint runs") == 2, "it runs again", 60)
    assert not alive(node)
    until(lambda: not alive(worker), "its worker is gone", 30)
    log = path.read_text()
    assert "A prior endpoint process ended without cleaning up; doing so now." in log
    endpoint.stop()


def test_users_are_found_as_the_system_finds_them(testbed, tmp_path):
    """Users that stand in no file, as with LDAP or SSSD: the C library is asked, and answers from wherever it is told to."""
    wrapper = next(Path("/usr/lib").glob("*/libnss_wrapper.so"), None)
    assert wrapper, "libnss_wrapper is missing: run tests/system"
    (tmp_path / "users").write_text(f"ada.lovelace:x:{os.getuid()}:{os.getgid()}:Ada:{tmp_path}:/bin/sh\n")
    (tmp_path / "groups").write_text(f"analysts:x:{os.getgid()}:\n")
    elsewhere = {
        "LD_PRELOAD": str(wrapper),
        "NSS_WRAPPER_PASSWD": str(tmp_path / "users"),
        "NSS_WRAPPER_GROUP": str(tmp_path / "groups"),
    }
    service = testbed.service()
    endpoint = testbed.endpoint(service, variables=elsewhere)
    assert service.rest().get(f"/v2/endpoints/{endpoint.id}")["local_user"] == "ada.lovelace"


def test_a_home_that_cannot_be_written_gives_one_clear_error(testbed):
    """On a read-only file system: no command hangs, none leaves anything half done."""
    service = testbed.service()
    endpoint = Endpoint(testbed, service, "stuck")
    endpoint.configure()
    seal = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    for words, status in (("start", 73), ("configure", 73)):
        name = "stuck" if words == "start" else "another"
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", seal, "sh", str(endpoint.directory)]
            + [str(part) for part in endpoint.command(words, name)],
            env=endpoint.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        assert len(done.stderr.splitlines()) == 1 and "Read-only file system" in done.stderr, done.stderr


@pytest.mark.parametrize("handed_down", [True, False])
def test_a_task_that_uses_the_sdk_is_the_endpoints_client(shared_testbed, service, sdk, handed_down):
    name = "passes-identity" if handed_down else "keeps-identity"
    config = {} if handed_down else {"pass_client_identity": False}
    endpoint = shared_testbed.endpoint(service, name, config=config)
    reports = sdk.run(
        """
        import sys

        def variables():
            import os
            return [name for name in sorted(os.environ) if name.endswith(("_CLIENT_ID", "_CLIENT_SECRET"))]

        def names_of_endpoints():
            from globus_compute_sdk import Client
            return [endpoint["name"] for endpoint in Client(do_version_check=False).get_endpoints()]

        with executor(sys.argv[1]) as ex:
            names = ex.submit(variables).result(timeout=60)
            report(names)
            if names:
                report(ex.submit(names_of_endpoints).result(timeout=60))
        """,
        endpoint.id,
    )
    if handed_down:
        variables, names = reports
        assert variables == ["GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"]
        assert name in names
    else:
        assert reports == [[]]
    endpoint.stop()
