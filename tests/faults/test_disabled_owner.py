"""The owner of a running endpoint is disabled, and enabled again."""

from processes import until

# Five times what is promised.
AT_ONCE = 10


def test_an_endpoint_of_a_disabled_client_is_told_why_it_ends_and_comes_back_when_it_is_enabled(testbed):
    service = testbed.service()
    endpoint = testbed.endpoint(service)
    log = endpoint.directory / endpoint.name / "endpoint.log"

    def status():
        return service.administer("endpoint", "show", endpoint.id)["status"]

    assert status() == "online"
    service.administer("client", "disable", service.identity[0])
    until(lambda: status() == "offline", "it is cut off", AT_ONCE)
    until(lambda: not endpoint.process.running(), "it gives up", 30)
    assert f"{service.identity[0]}@clients.auth.globus.org is disabled: ask who administers this service" in log.read_text()
    service.administer("client", "enable", service.identity[0])
    endpoint.start()
    assert status() == "online"
