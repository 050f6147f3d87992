"""The engines of our endpoint, as users of the stock SDK meet them."""

import pytest

from testbed import Endpoint, until


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


TOGETHER = """
import sys

def double(x):
    return 2 * x

def where():
    import os, threading
    return [os.getpid(), threading.current_thread() is threading.main_thread()]

def leaves():
    import sys
    sys.exit(3)

with executor(sys.argv[1]) as ex:
    report(sorted(future.result(timeout=60) for future in [ex.submit(double, n) for n in range(20)]))
    report(ex.submit(where).result(timeout=60)[1])
    report(str(ex.submit(leaves).exception(timeout=60)))
    report(ex.submit(double, 21).result(timeout=60))
    ex.resource_specification = {"num_nodes": 2}
    report(str(ex.submit(double, 1).exception(timeout=60)))
"""


@pytest.mark.parametrize(
    ("engine", "main_thread", "left"),
    [
        ("ThreadPoolEngine", False, "SystemExit: 3"),
        ("ProcessPoolEngine", True, "parsl.executors.high_throughput.errors.WorkerLost: "),
    ],
)
def test_a_pool(shared_testbed, service, sdk, engine, main_thread, left):
    endpoint = shared_testbed.endpoint(service, engine.lower(), engine={"type": engine, "max_workers": 2})
    doubled, in_main_thread, text, after, refused = sdk.run(TOGETHER, endpoint.id)
    assert doubled == [2 * n for n in range(20)]
    assert in_main_thread is main_thread
    assert left in text
    assert after == 42
    assert f"Failed to start task: resource_specification is not supported on {engine}." in refused


def test_what_worker_init_said_last_is_in_the_error_of_the_task(shared_testbed, service, sdk):
    # The function is submitted while the block still fails, and waits for it.
    init = "echo 'loading python/3.12'; sleep 5; echo 'module: no such module' >&2; exit 3"
    engine = {"type": "GlobusComputeEngine", "provider": {"type": "LocalProvider", "worker_init": init}}
    endpoint = shared_testbed.endpoint(service, "worker-init", engine=engine)
    [text] = sdk.run(
        """
        import sys

        with executor(sys.argv[1]) as ex:
            report(str(ex.submit(print).exception(timeout=60)))
        """,
        endpoint.id,
    )
    said = ["EXIT CODE: 3", "STDOUT: loading python/3.12", "STDERR: module: no such module"]
    for part in ["BadStateException: Executor ", *said]:
        assert part in text, text
    # The endpoint has said so with its last heartbeat.
    status = until(lambda: _offline(service, endpoint), "the endpoint has left", 60)
    for part in said:
        assert part in status["details"]["last_block_failure"], status


def _offline(service, endpoint):
    status = service.rest().get(f"/v2/endpoints/{endpoint.id}/status")
    return status if status["status"] == "offline" else None


def test_what_a_block_has_said_is_in_the_status_of_its_endpoint(shared_testbed, service, sdk):
    # Only this heals a block of this endpoint.
    healed = shared_testbed.directory / "healed"
    init = f"test -e {healed} || {{ echo 'loading python/3.12'; echo 'module: no such module' >&2; exit 3; }}"
    engine = {
        "type": "GlobusComputeEngine",
        "block_error_handler": False,
        "max_workers_per_node": 1,
        "provider": {"type": "LocalProvider", "worker_init": init},
    }
    endpoint = shared_testbed.endpoint(service, "broken-block", engine=engine, config={"heartbeat_period": 5})
    script = """
        import sys, time
        from globus_compute_sdk import Client

        client, said = Client(), "last_block_failure"
        status = lambda: client.get_endpoint_status(sys.argv[1])["details"]
        while said not in status():
            time.sleep(0.2)
        report(status()[said])
        open(sys.argv[2], "w").close()
        with executor(sys.argv[1]) as ex:
            report(ex.submit(abs, -42).result(timeout=60))
        while said in status():
            time.sleep(0.2)
        """
    text, value = sdk.run(script, endpoint.id, str(healed))
    for part in ["\tEXIT CODE: 3\n", "\tSTDOUT: loading python/3.12\n", "\tSTDERR: module: no such module\n"]:
        assert part in text, text
    assert value == 42


# As a login to another machine: an environment of its own, and a command in words.
LOGIN = """#!/bin/bash
echo "$1" >> {log}
shift
[ "$1" = -- ] && shift
cd
exec env -i HOME="$HOME" SHELL=/bin/bash PATH=/usr/bin:/bin bash -c "$*"
"""


def test_gnu_parallel_starts_a_node_on_each_machine_of_a_job(shared_testbed, service, sdk):
    place = shared_testbed.directory / "two machines"
    (place / "bin").mkdir(parents=True)
    (place / "met").mkdir()
    (place / "bin/ssh").write_text(LOGIN.format(log=f"'{place}/logins'"))
    (place / "bin/ssh").chmod(0o755)
    (place / "nodefile").write_text("node-b\nnode-a\nnode-b\n")
    init = f"export PATH='{place}/bin':\"$PATH\" PBS_NODEFILE='{place}/nodefile' MODULE=\"loaded 'here'\""
    provider = {"type": "LocalProvider", "nodes_per_block": 2, "worker_init": init, "launcher": {"type": "GnuParallelLauncher"}}
    engine = {"type": "GlobusComputeEngine", "max_workers_per_node": 1, "provider": provider}
    endpoint = shared_testbed.endpoint(service, "parallel", engine=engine)
    script = """
        import sys

        def meet(place):
            import os, time
            open(os.path.join(place, str(os.getppid())), "w").close()
            while len(os.listdir(place)) < 2:
                time.sleep(0.01)
            return [os.getppid(), os.environ["MODULE"]]

        with executor(sys.argv[1]) as ex:
            for future in [ex.submit(meet, sys.argv[2]) for _ in range(2)]:
                report(future.result(timeout=60))
        """
    (one, module), (other, _) = sdk.run(script, endpoint.id, str(place / "met"))
    assert one != other and module == "loaded 'here'"
    assert sorted((place / "logins").read_text().split()) == ["node-a", "node-b"]


def test_what_can_not_run_yet_is_refused_by_name(shared_testbed, service):
    for engine, words in [
        ({"type": "HighThroughputEngine"}, "HighThroughputEngine is now called GlobusComputeEngine; its options keep their names"),
        ({"type": "GlobusMPIEngine"}, "GlobusMPIEngine is not supported yet; meanwhile use GlobusComputeEngine"),
    ]:
        endpoint = Endpoint(shared_testbed, service, engine["type"].lower(), engine=engine)
        endpoint.configure()
        started = endpoint.run("start", endpoint.name)
        assert started.returncode != 0
        assert words in started.stdout + started.stderr
