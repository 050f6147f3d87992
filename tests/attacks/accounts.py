"""Attacks by people with an account on what belongs to others, and by people whose account was disabled."""

import uuid

import pytest

from rest import Refused, Rest
from table import attack, played_elsewhere

SERVICE = "crates/service/tests/service"
ENDPOINT = {"endpoint_name": "mine", "metadata": {}}
MANAGER = {"endpoint_name": "mine", "multi_user": True, "metadata": {"user_config_template": "engine: {}"}}


def refused(status, ask, *arguments):
    with pytest.raises(Refused) as answer:
        ask(*arguments)
    assert answer.value.status == status, answer.value
    return answer.value.body


def two_people(testbed):
    """A service with a victim and an attacker."""
    service = testbed.service()
    return service, service.rest(service.add_client("victim")), service.rest(service.add_client("attacker"))


@attack("a person with an account", "takes the id of an endpoint that was deleted")
def takes_the_id_of_a_deleted_endpoint(testbed):
    service, victim, attacker = two_people(testbed)
    endpoint = victim.post("/v3/endpoints", ENDPOINT)["endpoint_id"]
    victim.delete(f"/v2/endpoints/{endpoint}")
    other = victim.post("/v3/endpoints", ENDPOINT)["endpoint_id"]
    for body in (ENDPOINT, MANAGER, {"display_name": "mine"}):
        of_deleted = refused(404, attacker.put, f"/v3/endpoints/{endpoint}", body)
        # It looks as an endpoint that is there and none of the attacker's business.
        of_other = refused(404, attacker.put, f"/v3/endpoints/{other}", body)
        assert without_request(of_deleted, endpoint) == without_request(of_other, other)
    assert victim.put(f"/v3/endpoints/{endpoint}", ENDPOINT)["endpoint_id"] == endpoint


def without_request(body, endpoint):
    """A refusal without what differs from request to request."""
    return body.replace(endpoint, "ID").split('"request_id"')[0]


@attack("a person with an account", "registers the id that somebody's user endpoint will have")
def computes_the_id_of_a_user_endpoint(testbed):
    service, victim, attacker = two_people(testbed)
    manager = victim.post("/v3/endpoints", MANAGER)["endpoint_id"]
    for name in ("", "whatever it is made of"):
        computed = uuid.uuid5(uuid.UUID(manager), name)
        refused(404, attacker.put, f"/v3/endpoints/{computed}", ENDPOINT)


@attack("a person with an account", "sends tasks to a task group of somebody else")
def sends_tasks_to_a_group_of_somebody_else(testbed):
    service, victim, attacker = two_people(testbed)
    group = str(uuid.uuid4())
    submits = []
    for person in (victim, attacker):
        function = {"function_name": "f", "function_code": "7\n01\ngASV"}
        function = person.post("/v3/functions", function)["function_uuid"]
        endpoint = person.post("/v3/endpoints", ENDPOINT)["endpoint_id"]
        body = {"tasks": {function: ["5\n00\nab"]}, "task_group_id": group}
        submits.append((person.post, f"/v3/endpoints/{endpoint}/submit", body))
    (ask, *arguments), theirs = submits
    assert ask(*arguments)["task_group_id"] == group
    refused(404, *theirs)
    refused(404, attacker.get, f"/v2/taskgroup/{group}")
    assert len(victim.get(f"/v2/taskgroup/{group}")["tasks"]) == 1


@attack("a program that may only know who its user is", "looks up who others are")
def looks_up_others_without_the_scope(testbed):
    service = testbed.service()
    me, other = service.identity, service.add_client("other")
    path = f"/v2/api/identities?ids={other[0]},{me[0]}"
    names = f"/v2/api/identities?usernames={other[0]}@clients.auth.globus.org"
    for scope in ("openid", "email", "openid email profile"):
        for ask in (path, names):
            assert "view_identities" in refused(403, Rest(service.origin(), *me, scope=scope).get, ask)
    # As the stock endpoint's login: its own identity, and nobody else's.
    stock = "openid urn:globus:auth:scope:auth.globus.org:manage_projects"
    stock = Rest(service.origin(), *me, scope=stock)
    assert [it["id"] for it in stock.get(path)["identities"]] == [me[0]]
    assert stock.get(names)["identities"] == []


@attack("a person without administrator rights", "administers other people's endpoints")
def administers_without_being_an_administrator(testbed):
    service, victim, attacker = two_people(testbed)
    endpoint = victim.post("/v3/endpoints", ENDPOINT)["endpoint_id"]
    assert attacker.get("/v2/endpoints?role=any") == []
    for ask, path in (
        (attacker.get, f"/v2/endpoints/{endpoint}"),
        (attacker.get, f"/v2/endpoints/{endpoint}/status"),
        (attacker.delete, f"/v2/endpoints/{endpoint}"),
        (attacker.delete, f"/v3/endpoints/{endpoint}/lock"),
        (attacker.delete, f"/v3/endpoints/{endpoint}/tasks"),
    ):
        refused(404, ask, path)
    refused(404, attacker.post, f"/v3/endpoints/{endpoint}/lock", {})
    # The owner is none, either: a lock of an administrator's is not lifted.
    victim.post(f"/v3/endpoints/{endpoint}/lock", {})
    refused(403, victim.delete, f"/v3/endpoints/{endpoint}/lock")
    victim.delete(f"/v2/endpoints/{endpoint}")
    refused(423, victim.put, f"/v3/endpoints/{endpoint}", ENDPOINT)


played_elsewhere(
    "an administrator of the service",
    "uses an endpoint of somebody else's, and drops its tasks unnamed",
    f"{SERVICE}/administrators.rs::over_rest",
)
played_elsewhere(
    "a client that was disabled",
    "goes on with its endpoint and its results, and comes again",
    f"{SERVICE}/disabled_accounts.rs::a_disabled_client_loses_its_endpoints_until_it_is_enabled_again",
)
played_elsewhere(
    "a person who was disabled, got a new password, or was removed",
    "goes on with endpoints, managers and their user endpoints",
    f"{SERVICE}/disabled_accounts.rs::what_a_person_runs_ends_when_they_are_disabled_reset_or_removed",
)
played_elsewhere(
    "a client that is linked with a person and was disabled",
    "goes on with an endpoint that it registered in the person's name",
    f"{SERVICE}/disabled_accounts.rs::with_a_linked_client_end_the_endpoints_that_it_registered_and_no_others",
)
played_elsewhere(
    "a manager that was locked",
    "goes on taking tasks with its user endpoints",
    f"{SERVICE}/disabled_accounts.rs::a_locked_manager_is_cut_off_with_its_user_endpoints",
)
played_elsewhere(
    "somebody who is disabled while a request of theirs is under way",
    "is handed a token, a credential or an endpoint that outlives it",
    "crates/store/src/tests.rs::nothing_is_handed_out_to_who_is_shut_out",
)
played_elsewhere(
    "somebody who knows a password that is being replaced",
    "has many sign-ins under way, of which one outlives the reset",
    f"{SERVICE}/disabled_accounts.rs::no_sign_in_with_the_old_password_outlives_a_reset",
)
played_elsewhere(
    "somebody who knows a client's secret that is being replaced",
    "asks for tokens without a pause, of which one outlives the reset",
    f"{SERVICE}/disabled_accounts.rs::no_token_for_an_old_secret_or_an_undone_link_outlives_its_end",
)
played_elsewhere(
    "a client whose link with a person is undone",
    "asks for tokens without a pause, of which one still acts for the person",
    f"{SERVICE}/disabled_accounts.rs::no_token_for_an_old_secret_or_an_undone_link_outlives_its_end",
)
played_elsewhere(
    "somebody who is signed in as a person whose password is being replaced",
    "consents meanwhile, and has a code afterwards",
    "crates/store/src/tests.rs::a_secret_that_was_read_before_everything_ended_gives_nothing",
)
played_elsewhere(
    "a person with an account and a browser that signed in before",
    "has so many sign-ins with the right password under way that nobody else can sign in, and no password be set",
    "crates/identity/src/password.rs::one_address_takes_no_more_than_its_share_and_never_what_an_operator_needs",
)
played_elsewhere(
    "somebody who has guessed too often and has to wait",
    "tries other names from many addresses until their own count is forgotten",
    "crates/identity/src/login_throttle.rs::nobody_ends_a_wait_by_trying_other_names",
)
played_elsewhere(
    "somebody at the address of a whole campus",
    "guesses passwords so that nobody there can sign in",
    f"{SERVICE}/sign_in.rs::who_guesses_slows_their_address_and_closes_nobody_out_of_a_browser_that_was_there_before",
)
