"""The whole path, shared by the tests of one file: a service, and per release of the SDK an endpoint."""

import pytest

RELEASES = ["4.19.0", "3.8.0"]


@pytest.fixture(scope="module", params=RELEASES)
def release(request):
    return request.param


@pytest.fixture(scope="module")
def service(shared_scene):
    return shared_scene.service()


@pytest.fixture(scope="module")
def endpoint(shared_scene, service, release):
    """Our endpoint; its workers' Python has what the release's environment has."""
    return shared_scene.endpoint(service, f"endpoint-{release}", python=f"sdk-{release}")


@pytest.fixture(scope="module")
def sdk(service, release):
    return service.sdk(release)
