"""The engines of our endpoint, as users of the stock SDK meet them."""

import pytest

from scene import Endpoint


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
    tell(sorted(future.result(timeout=60) for future in [ex.submit(double, n) for n in range(20)]))
    tell(ex.submit(where).result(timeout=60)[1])
    tell(str(ex.submit(leaves).exception(timeout=60)))
    tell(ex.submit(double, 21).result(timeout=60))
    ex.resource_specification = {"num_nodes": 2}
    tell(str(ex.submit(double, 1).exception(timeout=60)))
"""


@pytest.mark.parametrize(
    ("engine", "main_thread", "left"),
    [
        ("ThreadPoolEngine", False, "SystemExit: 3"),
        ("ProcessPoolEngine", True, "parsl.executors.high_throughput.errors.WorkerLost: "),
    ],
)
def test_a_pool(shared_scene, service, sdk, engine, main_thread, left):
    endpoint = shared_scene.endpoint(service, engine.lower(), engine={"type": engine, "max_workers": 2})
    doubled, in_main_thread, text, after, refused = sdk.run(TOGETHER, endpoint.id)
    assert doubled == [2 * n for n in range(20)]
    assert in_main_thread is main_thread
    assert left in text
    assert after == 42
    assert f"Failed to start task: resource_specification is not supported on {engine}." in refused


def test_what_worker_init_said_last_is_in_the_error_of_the_task(shared_scene, service, sdk):
    # The function is submitted while the block still fails, and waits for it.
    init = "echo 'loading python/3.12'; sleep 5; echo 'module: no such module' >&2; exit 3"
    engine = {"type": "GlobusComputeEngine", "provider": {"type": "LocalProvider", "worker_init": init}}
    endpoint = shared_scene.endpoint(service, "worker-init", engine=engine)
    [text] = sdk.run(
        """
        import sys

        with executor(sys.argv[1]) as ex:
            tell(str(ex.submit(print).exception(timeout=60)))
        """,
        endpoint.id,
    )
    for part in ["BadStateException: Executor ", "EXIT CODE: 3", "STDOUT: loading python/3.12", "STDERR: module: no such module"]:
        assert part in text, text


def test_what_can_not_run_yet_is_refused_by_name(shared_scene, service):
    for engine, words in [
        ({"type": "HighThroughputEngine"}, "HighThroughputEngine is now called GlobusComputeEngine; its options keep their names"),
        ({"type": "GlobusMPIEngine"}, "GlobusMPIEngine is not supported yet; meanwhile use GlobusComputeEngine"),
    ]:
        endpoint = Endpoint(shared_scene, service, engine["type"].lower(), engine=engine)
        endpoint.configure()
        started = endpoint.run("start", endpoint.name)
        assert started.returncode != 0
        assert words in started.stdout + started.stderr
