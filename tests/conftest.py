"""Fixtures and hooks of all Python tests: testbeds, logs shown with a failure, parts of the long tests."""

import os
import signal
import sys
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

sys.path.insert(0, str(Path(__file__).resolve().parent))

import long  # noqa: E402
from postgres import VARIABLE, Postgres  # noqa: E402
from testbed import Testbed  # noqa: E402

# A shell starts what it runs in the background with these ignored, and every program here would inherit that.
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Long logs are cut: their end tells why a test failed.
SHOWN = 20_000

testbeds = []


def _testbed(directory):
    testbed = Testbed(directory)
    testbeds.append(testbed)
    yield testbed
    try:
        testbed.close()
    finally:
        testbeds.remove(testbed)


@pytest.fixture
def testbed(tmp_path):
    """A testbed of the test's own."""
    yield from _testbed(tmp_path)


@pytest.fixture(scope="module")
def shared_testbed(tmp_path_factory):
    """A testbed that the tests of one file share."""
    yield from _testbed(tmp_path_factory.mktemp("testbed"))


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server that the tests of this process share."""
    with Postgres("shared") as server:
        yield server


def pytest_addoption(parser):
    parser.addoption("--part", choices=list(long.PARTS), help="run only this part of the long tests")


class ByFile(LoadFileScheduling):
    """With `--dist loadfile`, tests of one file run in one process. So do all files that have the accounts of this machine: in
    other processes they would only wait for each other."""

    def _split_scope(self, nodeid):
        file = super()._split_scope(nodeid)
        with_accounts = "import local_users" in (Path(__file__).parent / file).read_text()
        return "local_users" if with_accounts else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config, items):
    """Leaves only the part that was asked for; refuses marks that name none."""
    parts = {}
    for item in items:
        if mark := item.get_closest_marker("long"):
            parts[item] = mark.args[0] if mark.args else long.OTHERS
            if parts[item] not in long.PARTS:
                raise pytest.UsageError(f"{item.nodeid}: {parts[item]} is no part of tests/long.py")
    if part := config.getoption("--part"):
        if part == long.ON_POSTGRES:
            end_to_end = Path(__file__).parent / "e2e"
            parts |= {item: part for item in items if item not in parts and item.path.is_relative_to(end_to_end)}
        _leave(config, items, lambda item: parts.get(item) == part)
    if VARIABLE in os.environ:
        _leave(config, items, lambda item: not item.get_closest_marker("sqlite"))


def _leave(config, items, wanted):
    """Deselects all but those that are wanted."""
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for testbed in testbeds:
            for log in sorted(testbed.directory.rglob("*.log")):
                text = log.read_text(errors="replace")
                report.sections.append((str(log.relative_to(testbed.directory)), text[-SHOWN:]))
    return report
