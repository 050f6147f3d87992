"""Lists of allowed functions: a manager's holds at the service and in its user endpoints, also when it changes; without one, the
template says which functions a person may run."""

import os
import re
import signal
import textwrap
from pathlib import Path

import local_users
import pytest
from processes import until
from rest import Refused

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def alicia(service, people):
    return service.sdk("4.19.0", people["alicia"])


@pytest.fixture(scope="module")
def functions(alicia):
    """The ids of four functions. Each says in which user endpoint it ran, and writes its name into its user's home."""
    (ids,) = alicia.run(
        """
        def ran(name):
            import os

            with open(os.path.expanduser("~/ran"), "a") as ran:
                ran.write(name)
            return os.getppid()

        client = Client()
        report([client.register_function(ran, public=True) for _ in range(4)])
        """
    )
    return ids


# Each function with an executor of its own, on a Python that says of itself that it is of the version.
CALL = """
    import sys

    endpoint, version, *functions = sys.argv[1:]
    sys.version = version + sys.version.removeprefix("3.11")
    for function in functions:
        with executor(endpoint) as ex:
            future = ex.submit_to_registered_function(function, args=(function,))
            error = future.exception(timeout=100)
            report(str(error) if error else future.result())
"""


def call(sdk, manager, *functions, python="3.11"):
    return sdk.run(CALL, manager.id, python, *functions)


def manager_with(shared_testbed, service, mapping, **options):
    manager = local_users.OwnManager(shared_testbed, service, mapping, **options)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def ran(account):
    """The functions that have run, in order."""
    path = Path(account.pw_dir) / "ran"
    return re.findall(".{36}", path.read_text()) if path.exists() else []


def user_endpoint(account):
    """The id and the log of the only user endpoint of an account."""
    (log,) = Path(account.pw_dir).glob(".globus_compute/uep.*/endpoint.log")
    return log.parent.name.rpartition(".")[2], log


def change(manager, **config):
    """Changes the configuration as an administrator does, and waits until the next program runs."""
    begun = manager.log_text().count("the manager runs")
    manager.config = config
    manager.write_config()
    os.kill(manager.process.pid, signal.SIGHUP)
    until(lambda: manager.log_text().count("the manager runs") > begun, "the manager runs again")
    until(manager.online, "it is online")


def allowed(service, endpoint, identity=None):
    answer = service.rest(identity).get(f"/v3/endpoints/{endpoint}/allowed_functions")
    return answer["restricted"], answer["functions"]


def test_the_managers_list_holds_everywhere_and_is_followed(shared_testbed, service, users, people, alicia, functions):
    one, two, three, _ = functions
    mapping = local_users.ids(people, "alicia")
    manager = manager_with(shared_testbed, service, mapping, name="listed", config={"allowed_functions": [one, two]})
    account, changes = users["alicia"], "the manager's list of allowed functions has changed"

    (text,) = call(alicia, manager, three)
    assert "403" in text and "FUNCTION_NOT_PERMITTED" in text
    assert f"Function {three} not permitted on endpoint {manager.id}" in text
    assert not local_users.processes_of("alicia") and "Creating new user endpoint" not in manager.log_text()

    (first, told) = alicia.run(CALL + "\n    report(Client().get_allowed_functions(endpoint))", manager.id, "3.11", one)
    assert told["restricted"] is True and sorted(told["functions"]) == sorted([one, two])
    assert first in local_users.processes_of("alicia")
    own, log = user_endpoint(account)
    assert allowed(service, own, people["alicia"]) == (True, [one, two]), "a user endpoint has its manager's list"

    # Behind the manager's back: only its user endpoint stands between a function and the user's files.
    service.rest().put(f"/v3/endpoints/{manager.id}", {"allowed_functions": functions})
    (text,) = call(alicia, manager, three)
    assert f"Function {three} not permitted on endpoint {own}" in text and "403" not in text
    assert ran(account) == [one]

    change(manager, allowed_functions=[one, three])
    assert allowed(service, manager.id) == allowed(service, own, people["alicia"]) == (True, [one, three])
    until(lambda: changes in log.read_text(), "the user endpoint follows, which is promised within 5 s", 25)
    refused, *others = call(alicia, manager, two, three, one)
    assert f"Function {two} not permitted on endpoint {manager.id}" in refused
    assert others == [first, first], "the same user endpoint goes on"
    assert ran(account) == [one, three, one]
    # A user endpoint can be asked directly, too.
    with pytest.raises(Refused, match="FUNCTION_NOT_PERMITTED"):
        service.rest(people["alicia"]).post(f"/v3/endpoints/{own}/submit", {"tasks": {two: ["00\ngARLAi4=\n"]}})

    change(manager, allowed_functions=[])
    assert allowed(service, manager.id) == (True, [])
    until(lambda: log.read_text().count(changes) == 2, "the user endpoint follows, which is promised within 5 s", 25)
    assert "no function is allowed: the list of allowed functions is empty" in log.read_text()
    (text,) = call(alicia, manager, one)
    assert f"Function {one} not permitted on endpoint {manager.id}" in text

    # Without a list everything is allowed.
    change(manager)
    assert allowed(service, manager.id) == (False, [])
    until(lambda: log.read_text().count(changes) == 3, "the user endpoint follows, which is promised within 5 s", 25)
    assert call(alicia, manager, two) == [first]
    assert ran(account) == [one, three, one, two]


def test_a_template_says_which_functions_each_may_run(shared_testbed, service, users, people, functions):
    """The template of the administrators' guide: what a person may run depends on their Python."""
    one, two, three, four = functions
    template = textwrap.dedent(local_users.TEMPLATE) + textwrap.dedent(
        f"""
        allowed_functions:
        {{% if '3.13' in user_runtime.python_version %}}
          - {one}
          - {two}
        {{% elif '3.12' in user_runtime.python_version %}}
          - {three}
        {{% endif %}}
        """
    )
    mapping = local_users.ids(people, "roberto", "harper", "tory", "jessica")
    manager = manager_with(shared_testbed, service, mapping, name="by-template", template=template)
    assert allowed(service, manager.id) == (False, []), "the service does not know"
    logs = {}
    for name, python, may, may_not in [("roberto", "3.13", [one, two], three), ("harper", "3.12", [three], one), ("tory", "3.11", [], one)]:
        sdk = service.sdk("4.19.0", people[name])
        results = call(sdk, manager, *may, may_not, python=python)
        own, logs[name] = user_endpoint(users[name])
        assert all(result in local_users.processes_of(name) for result in results[:-1]), results
        assert f"Function {may_not} not permitted on endpoint {own}" in results[-1], results
        assert ran(users[name]) == may
    assert "no function is allowed: the list of allowed functions is empty" in logs["tory"].read_text()

    # A manager's list goes before the template's, for those that run and for the next.
    change(manager, allowed_functions=[four])
    ignored = "the manager's list of allowed functions holds; the template's is ignored"
    until(lambda: ignored in logs["harper"].read_text(), "the user endpoint follows, which is promised within 5 s", 25)
    for name, python in (("harper", "3.12"), ("jessica", "3.13")):
        sdk = service.sdk("4.19.0", people[name])
        ours, theirs = call(sdk, manager, four, three, python=python)
        assert ours in local_users.processes_of(name), ours
        assert f"Function {three} not permitted on endpoint {manager.id}" in theirs
        assert ignored in user_endpoint(users[name])[1].read_text()
