"""`endpoint_setup` and `endpoint_teardown` of user endpoints of our manager: who runs them, and what a submit is told meanwhile."""

import json
import os
import signal
import textwrap
import time
from pathlib import Path

import local_users
import pytest
from processes import until

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

TEMPLATE = textwrap.dedent(local_users.TEMPLATE) + textwrap.dedent("""
    endpoint_setup: {{ set_up }}
    endpoint_teardown: {{ tear_down|default('"true"') }}
    """)

ASK = """
    import json, sys

    def where():
        import os

        return [os.getuid(), os.getppid()]

    with executor(sys.argv[1], user_endpoint_config=json.loads(sys.argv[2])) as ex:
        future = ex.submit(where)
        error = future.exception(timeout=100)
        report(str(error) if error else future.result())
"""


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


@pytest.fixture(scope="module")
def manager(shared_testbed, service, users, people):
    mapping = local_users.ids(people, "alicia", "harper", "tory")
    manager = local_users.OwnManager(shared_testbed, service, mapping, template=TEMPLATE)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def listed(service, manager, person):
    """The user endpoints of this person, as the manager's owner sees them."""
    found = service.rest().get(f"/v3/endpoints/{manager.id}/user_endpoints")
    return [it for it in found if it["owner"] == person[0]]


def test_both_run_as_the_user_and_the_latter_when_it_is_idle(service, manager, users, people):
    """The set-up takes long enough for a report of it, and its output is in the log."""
    config = {
        "soft": 1,
        "set_up": "echo building as $(id -un); sleep 7; id -un > ~/set-up",
        "tear_down": "id -un > ~/torn-down",
    }
    home = Path(users["alicia"].pw_dir)
    client = service.sdk("4.19.0", people["alicia"]).start(ASK, manager.id, json.dumps(config))
    (mine,) = until(lambda: listed(service, manager, people["alicia"]), "it is being started", 30)
    status = f"/v2/endpoints/{mine['uuid']}/status"
    hers = service.rest(people["alicia"])

    def told():
        return hers.get(status)["details"].get("farcall", {}).get("set_up")

    assert until(told, "its owner sees how far it is", 30)["output"] == "building as alicia"
    assert not (home / "set-up").exists()
    ((uid, parent),) = client.finish()
    assert uid == users["alicia"].pw_uid and parent in local_users.processes_of("alicia")
    assert (home / "set-up").read_text() == "alicia\n"
    log = home / ".globus_compute" / f"uep.{manager.id}.{mine['uuid']}" / "endpoint.log"
    assert "building as alicia" in log.read_text()
    assert not (home / "torn-down").exists()
    until(lambda: (home / "torn-down").exists(), "it is idle and torn down", 40)
    assert (home / "torn-down").read_text() == "alicia\n"
    until(lambda: not manager.children(), "it has ended")
    (ended,) = listed(service, manager, people["alicia"])
    assert ended["status"] == "offline" and ended["last_end"]["reason"].startswith("It was idle")


def test_a_set_up_that_fails_is_the_answer_with_its_last_lines(service, manager, users, people):
    config = {"set_up": "for i in 1 2 3; do echo line $i; done; echo no such package >&2; exit 3"}
    (text,) = service.sdk("4.19.0", people["harper"]).run(ASK, manager.id, json.dumps(config))
    text = text.replace("\\n", "\n")
    assert "422" in text and "SEMANTICALLY_INVALID" in text
    expected = "(SystemExit) 78\nendpoint_setup failed (exit status: 3):\n  line 1\n  line 2\n  line 3\n  no such package"
    assert "Request payload failed validation: Failed to start or unexpected error:\n  " + expected in text, text
    until(lambda: not local_users.processes_of("harper"), "nothing of it is left")
    (failed,) = listed(service, manager, people["harper"])
    assert failed["last_end"]["reason"].endswith("no such package")


def test_a_stop_during_a_set_up_ends_all_of_it(service, manager, users, people):
    config = {"set_up": "sleep 1000 & sleep 1001"}
    client = service.sdk("4.19.0", people["tory"]).start(ASK, manager.id, json.dumps(config))
    until(lambda: len(local_users.processes_of("tory")) >= 4, "the set-up runs", 30)
    (child,) = [pid for pid in manager.children() if pid in local_users.processes_of("tory")]

    os.kill(child, signal.SIGTERM)
    until(lambda: not local_users.processes_of("tory"), "nothing of it is left", 20)
    (text,) = client.finish()
    assert "the user endpoint was stopped during its endpoint_setup" in text


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_set_up_of_more_than_a_submit_can_wait_goes_on_and_the_next_submit_joins_it(service, manager, users, people):
    config = {"set_up": "echo x >> ~/set-ups; for i in $(seq 75); do echo step $i; sleep 1; done", "workers": 2}
    sdk = service.sdk("4.19.0", people["harper"])
    began = time.monotonic()
    (text,) = sdk.run(ASK, manager.id, json.dumps(config))
    assert 45 < time.monotonic() - began < 75
    text = text.replace("\\n", "\n")
    assert "422" in text and "is still being set up" in text and "Submit again" in text, text
    steps = text[text.index("The last that it printed:") :]
    assert "step 40\n" in steps and "step 75" not in steps, text
    before = manager.children()
    (answer,) = sdk.run(ASK, manager.id, json.dumps(config))
    assert answer[0] == users["harper"].pw_uid
    assert manager.children() == before
    assert (Path(users["harper"].pw_dir) / "set-ups").read_text() == "x\n"
