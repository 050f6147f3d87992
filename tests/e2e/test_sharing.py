"""Functions that are shared or refused, source instead of pickles, and how the stock SDK shows the service's errors."""

import uuid

import pytest

from testbed import Sdk


@pytest.fixture(scope="module")
def other(service):
    """Another identity at the same service."""
    return service.add_client("other")


def test_a_function_is_shared_or_refused(service, sdk, endpoint, other, release):
    """The endpoint's owner runs what the other made public, and learns nothing of the rest."""
    [public, private] = Sdk(service, release, other).run(
        """
        def greet(name):
            return f"hello {name}"

        client = Client()
        report(client.register_function(greet, public=True))
        report(client.register_function(greet))
        """
    )
    reports = sdk.run(
        """
        import sys
        endpoint, public, private = sys.argv[1:]

        with executor(endpoint) as ex:
            report(ex.submit_to_registered_function(public, args=("you",)).result(timeout=60))
            report(str(ex.submit_to_registered_function(private, args=("you",)).exception(timeout=60)))
        client = Client()
        report(client.get_function(public)["function_name"])
        try:
            client.get_function(private)
        except Exception as error:
            report([error.http_status, error.code])
        try:
            client.delete_function(public)
        except Exception as error:
            report([error.http_status, error.code])
        """,
        endpoint.id,
        public,
        private,
    )
    assert reports[0] == "hello you"
    assert "FUNCTION_NOT_FOUND" in reports[1] and f"Function {private} could not be resolved" in reports[1]
    assert reports[2:] == ["greet", [404, "FUNCTION_NOT_FOUND"], [403, "FUNCTION_ACCESS_FORBIDDEN"]]


def test_a_function_that_the_endpoint_does_not_allow(service, sdk):
    rest = service.rest()
    body = {"endpoint_name": "choosy", "metadata": {}, "allowed_functions": [str(uuid.uuid4())]}
    endpoint = rest.post("/v3/endpoints", body)["endpoint_id"]
    [function, text] = sdk.run(
        """
        import sys

        def greet(name):
            return f"hello {name}"

        function = Client().register_function(greet)
        report(function)
        with executor(sys.argv[1]) as ex:
            report(str(ex.submit_to_registered_function(function, args=("you",)).exception(timeout=60)))
        """,
        endpoint,
    )
    assert "403" in text and "FUNCTION_NOT_PERMITTED" in text
    assert f"Function {function} not permitted on endpoint {endpoint}" in text


def test_source_instead_of_a_pickle(sdk, endpoint, release):
    if release == "3.8.0":
        assert sdk.run("report(hasattr(Client, 'register_source_code'))") == [False]
        return
    reports = sdk.run(
        """
        import sys

        source = "def shout(text):\\n    return text.upper() + '✓'\\n"
        function = Client().register_source_code(source, "shout")
        with executor(sys.argv[1]) as ex:
            report(ex.submit_to_registered_function(function, args=("grün",)).result(timeout=60))
        """,
        endpoint.id,
    )
    assert reports == ["GRÜN✓"]


def test_what_the_client_asks_of_endpoints(service, sdk, endpoint):
    """Status, listing, allow-list, remote stop: the calls of `Client` beside those about tasks."""
    rest = service.rest()
    spare = rest.post("/v3/endpoints", {"endpoint_name": "spare", "metadata": {}})["endpoint_id"]
    reports = sdk.run(
        """
        import sys
        endpoint, spare, nobody = sys.argv[1:]
        client = Client()

        report(client.get_endpoint_status(endpoint)["status"])
        report(client.get_endpoint_metadata(endpoint)["name"])
        report(sorted(it["uuid"] for it in client.get_endpoints() if it["uuid"] in (endpoint, spare)))
        report(client.get_allowed_functions(spare) if hasattr(client, "get_allowed_functions") else None)
        report(client.stop_endpoint(spare)["endpoint_id"])
        try:
            client.register_endpoint("spare", spare, metadata={})
        except Exception as error:
            report([error.http_status, error.code])
        report(client.delete_endpoint(spare)["result"])
        for ask in (client.get_endpoint_status, client.delete_endpoint):
            try:
                ask(nobody)
            except Exception as error:
                report([error.http_status, error.code, "could not be resolved" in str(error)])
        """,
        endpoint.id,
        spare,
        str(uuid.uuid4()),
    )
    [status, name, listed, allowed, stopped, locked, deleted, *unknown] = reports
    assert (status, name, listed) == ("online", endpoint.name, sorted([endpoint.id, spare]))
    assert allowed in (None, [], {"endpoint_id": spare, "restricted": False, "functions": []})
    assert (stopped, locked, deleted) == (spare, [423, "RESOURCE_LOCKED"], 302)
    assert unknown == [[404, "ENDPOINT_NOT_FOUND", True]] * 2


def test_containers_are_kept_for_older_clients(sdk, release):
    if release != "3.8.0":
        assert sdk.run("report(hasattr(Client, 'register_container'))") == [False]
        return
    reports = sdk.run(
        """
        client = Client()
        container = client.register_container("/x/y.sif", "singularity", name="n")
        report(client.get_container(container, "singularity")["location"])
        """
    )
    assert reports == ["/x/y.sif"]
