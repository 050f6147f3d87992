"""What every Python test finds: scenes, and the logs of their parties beside a failure."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import long  # noqa: E402
from scene import Scene  # noqa: E402

# Long logs are cut: their end tells why a test failed.
SHOWN = 20_000

scenes = []


def _scene(directory):
    scene = Scene(directory)
    scenes.append(scene)
    yield scene
    try:
        scene.close()
    finally:
        scenes.remove(scene)


@pytest.fixture
def scene(tmp_path):
    """A scene of the test's own."""
    yield from _scene(tmp_path)


@pytest.fixture(scope="module")
def shared_scene(tmp_path_factory):
    """A scene that the tests of one file share."""
    yield from _scene(tmp_path_factory.mktemp("scene"))


def pytest_addoption(parser):
    parser.addoption("--part", choices=list(long.PARTS), help="run only this part of the long tests")


def pytest_collection_modifyitems(config, items):
    """Leaves only the part that was asked for; refuses marks that name none."""
    parts = {}
    for item in items:
        if mark := item.get_closest_marker("long"):
            parts[item] = mark.args[0] if mark.args else long.OTHERS
            if parts[item] not in long.PARTS:
                raise pytest.UsageError(f"{item.nodeid}: {parts[item]} is no part of tests/long.py")
    if part := config.getoption("--part"):
        config.hook.pytest_deselected(items=[item for item in items if parts.get(item) != part])
        items[:] = [item for item in items if parts.get(item) == part]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for scene in scenes:
            for log in sorted(scene.directory.rglob("*.log")):
                text = log.read_text(errors="replace")
                report.sections.append((str(log.relative_to(scene.directory)), text[-SHOWN:]))
    return report
