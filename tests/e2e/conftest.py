"""Fixtures that the tests of one file share: a service, and for each cell of the matrix an endpoint and an SDK.

A file that says nothing runs with our endpoint and both releases of the SDK; one that defines `cell` or `release` itself
runs with those.
"""

import local_users
import pytest
from matrix import OURS, cells


@pytest.fixture(scope="module", params=cells(endpoint=[OURS]), ids=str)
def cell(request):
    return request.param


@pytest.fixture(scope="module")
def release(cell):
    """Of the SDK."""
    return cell.sdk


@pytest.fixture(scope="module")
def service(shared_testbed):
    return shared_testbed.service()


@pytest.fixture(scope="module")
def endpoint(shared_testbed, service, cell):
    return cell.endpoint_in(shared_testbed, service)


@pytest.fixture(scope="module")
def sdk(service, release):
    return service.sdk(release)


@pytest.fixture(scope="module")
def users():
    """The accounts of this machine; see `local_users`."""
    with local_users.LocalUsers() as users:
        yield users


@pytest.fixture(scope="module")
def people(service):
    """A client identity for each account, and for two people without one: `nobody` and `ghost`."""
    return {name: service.add_client(name) for name in (*local_users.NAMES, "nobody", "ghost")}
