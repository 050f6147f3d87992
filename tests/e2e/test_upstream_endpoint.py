"""Upstream's endpoint from PyPI, unmodified, against our service."""

import pytest


@pytest.fixture(scope="module")
def release():
    """The last release family whose endpoints run tasks themselves; later ones are managers of template endpoints."""
    return "3.8.0"


@pytest.fixture(scope="module")
def endpoint(shared_scene, service, release):
    return shared_scene.endpoint(service, "upstream", python=f"sdk-{release}", upstream=True)


def test_it_registers_runs_tasks_and_leaves(sdk, endpoint):
    told = sdk.run(
        """
        import sys

        def inverse(x):
            return 1 / x

        with executor(sys.argv[1]) as ex:
            futures = [ex.submit(inverse, x) for x in (1, 2, 4)]
            tell([future.result(timeout=90) for future in futures])
            tell("ZeroDivisionError" in str(ex.submit(inverse, 0).exception(timeout=90)))
        """,
        endpoint.id,
    )
    assert told == [[1.0, 0.5, 0.25], True]
    endpoint.stop()
    assert not endpoint.online()
