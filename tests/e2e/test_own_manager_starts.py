"""Starts of user endpoints of our manager: who shares one, how many there are, and what is told when none can be started."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import local_users
import pytest
from processes import until
from rest import Refused
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

# Heartbeats are at least this far apart, in seconds.
PERIOD = 5

PARENT = """
    import json, sys

    def where():
        import os

        return os.getppid()

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
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, *local_users.NAMES, "ghost"))
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def run(service, manager, person, config=None):
    """The result of one task, or the text of its error."""
    (answer,) = service.sdk("4.19.0", person).run(PARENT, manager.id, json.dumps(config or {}))
    return answer.replace("\\n", "\n") if isinstance(answer, str) else answer


def user_endpoints(service, manager, person):
    """The ids of the user endpoints of this person."""
    listed = service.rest().get(f"/v3/endpoints/{manager.id}/user_endpoints")
    return {it["uuid"] for it in listed if it["owner"] == person[0]}


def of(manager, name):
    """The processes of this user's user endpoints."""
    return [pid for pid in manager.children() if pid in local_users.processes_of(name)]


def test_the_same_options_are_the_same_user_endpoint_after_restarts_of_service_and_manager(service, manager, users, people):
    """Two people with the same options have their own. A restart of the manager ends all user endpoints and starts afresh."""
    for name in ("alicia", "harper"):
        assert isinstance(run(service, manager, people[name]), int)
    hers, his = (user_endpoints(service, manager, people[name]) for name in ("alicia", "harper"))
    assert len(hers) == len(his) == 1 and hers != his
    (before,) = of(manager, "alicia")
    service.kill()
    service.start()
    until(manager.online, "the manager is online again", 60)
    run(service, manager, people["alicia"])
    assert of(manager, "alicia") == [before], "it goes on"
    assert user_endpoints(service, manager, people["alicia"]) == hers

    children = manager.children()
    manager.stop()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    manager.start()
    assert not manager.children()
    assert isinstance(run(service, manager, people["alicia"]), int)
    assert user_endpoints(service, manager, people["alicia"]) == hers
    assert len(of(manager, "alicia")) == 1


def test_a_second_instance_of_a_manager_gets_no_command(shared_testbed, service, manager, users, people):
    """A copy of its directory on another host, as far as anybody can see."""
    second = shared_testbed.directory / "elsewhere"
    shutil.copytree(manager.directory, second, ignore=shutil.ignore_patterns("daemon.*", "*.log"))
    command = [binary("globus-compute-endpoint"), "-c", second, "start", manager.name]
    done = subprocess.run(
        command, env=manager.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 69 and "Endpoint registration blocked" in done.stdout + done.stderr, done
    assert "stop it where it runs" in done.stdout + done.stderr
    before = manager.log_text().count("Creating new user endpoint")
    for number in range(3):
        assert isinstance(run(service, manager, people["tory"], {"workers": number + 1}), int)
    assert manager.log_text().count("Creating new user endpoint") == before + 3
    assert len(of(manager, "tory")) == 3


@pytest.mark.parametrize("person", ["nobody", "ghost"])
def test_a_refusal_comes_at_once_and_starts_no_process_of_anybody(service, manager, users, people, person):
    """`nobody` is not mapped, and `ghost` to an account that there is not."""

    def processes():
        return {*manager.children(), *(pid for name in local_users.NAMES for pid in local_users.processes_of(name))}

    before = processes()
    script = """
        import sys, time

        def nothing():
            pass

        with executor(sys.argv[1]) as ex:
            future = ex.submit(nothing)
            began = time.monotonic()
            report([str(future.exception(timeout=100)), time.monotonic() - began])
    """
    ((text, seconds),) = service.sdk("4.19.0", people[person]).run(script, manager.id)
    assert "422" in text and "SEMANTICALLY_INVALID" in text
    # 5 s are promised.
    assert seconds < 25
    assert processes() <= before


def test_who_comes_when_the_manager_is_full_is_told(shared_testbed, service, users, people):
    mapping = local_users.ids(people, "alicia", "harper")
    manager = local_users.OwnManager(shared_testbed, service, mapping, name="small", config={"max_user_endpoints": 1})
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    assert isinstance(run(service, manager, people["alicia"], {"soft": 1}), int)
    text = run(service, manager, people["harper"])
    assert "422" in text and "SEMANTICALLY_INVALID" in text and "too many user endpoints run" in text, text
    assert not of(manager, "harper")
    until(lambda: not manager.children(), "the first is idle and has ended", 30)
    assert isinstance(run(service, manager, people["harper"]), int), "there is room again"
    manager.stop()


@pytest.mark.long
def test_who_submits_to_a_manager_that_is_away_is_told_when_it_was_seen(shared_testbed, service, users, people):
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "alicia"), name="away")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    manager.stop()
    client = service.sdk("4.19.0", people["alicia"]).start(PARENT, manager.id, "{}")
    rest = service.rest(people["alicia"])
    function = rest.post("/v3/functions", {"function_name": "f", "function_code": "7\n01\ngASV"})["function_uuid"]
    began = time.monotonic()
    with pytest.raises(Refused) as refused:
        rest.post(f"/v3/endpoints/{manager.id}/submit", {"tasks": {function: ["5\n00\nab5\n00\ncd"]}})
    assert refused.value.status == 409 and time.monotonic() - began < 60
    (text,) = client.finish()
    for told in (text, str(refused.value)):
        assert "RESOURCE_CONFLICT" in told and "last seen at 20" in told and "globus-compute-endpoint start away" in told


@pytest.mark.long
@pytest.mark.sqlite
def test_a_user_endpoint_whose_credential_is_refused_gets_a_new_one_and_goes_on(service, manager, users, people):
    """The next submit makes the service send a start command; the manager hands the new credential to the same process."""
    run(service, manager, people["roberto"], {})
    (before,) = of(manager, "roberto")
    (mine,) = user_endpoints(service, manager, people["roberto"])
    service.stop()
    with sqlite3.connect(next(service.data.glob("*.db"))) as database:
        key = bytes.fromhex(mine.replace("-", ""))
        ended = database.execute("DELETE FROM credentials WHERE subject_id = ?", [key]).rowcount
    assert ended == 1
    service.start()
    until(manager.online, "the manager is online again", 60)
    assert isinstance(run(service, manager, people["roberto"], {}), int)
    assert of(manager, "roberto") == [before], "the same process"
    with sqlite3.connect(next(service.data.glob("*.db"))) as database:
        (left,) = database.execute("SELECT count(*) FROM credentials WHERE subject_id = ?", [key]).fetchone()
    assert left == 1, "its first use has ended any other"


@pytest.mark.long
def test_a_long_task_is_not_idle(service, manager, users, people):
    """It takes longer than the idle limit; then the user endpoint ends."""
    script = """
        import sys

        def slow():
            import os, time

            time.sleep(13)
            return os.getppid()

        with executor(sys.argv[1], user_endpoint_config={"soft": 1, "workers": 1}) as ex:
            report(ex.submit(slow).result(timeout=100))
    """
    before = set(of(manager, "harper"))
    client = service.sdk("4.19.0", people["harper"]).start(script, manager.id)
    until(lambda: set(of(manager, "harper")) - before, "it is started", 30)
    (fresh,) = set(of(manager, "harper")) - before
    assert len(client.finish()) == 1
    manager.wait_for_log(rf"Command stopped normally \({fresh}\) ", 30)


@pytest.mark.long
def test_idle_blocks_are_given_back_and_the_user_endpoint_stays(shared_testbed, service, users, people):
    template = """
        engine:
          type: GlobusComputeEngine
          max_workers_per_node: 1
          strategy: {type: SimpleStrategy, max_idletime: 4}
          job_status_kwargs: {strategy_period: 1}
          provider: {type: LocalProvider, init_blocks: 0, min_blocks: 0, max_blocks: 1}
        heartbeat_period: 5
        """
    manager = local_users.OwnManager(shared_testbed, service, local_users.ids(people, "jessica"), name="blocks", template=template)
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    for _ in range(2):
        run(service, manager, people["jessica"])
        (child,) = of(manager, "jessica")
        assert len(local_users.processes_of("jessica")) > 1
        until(lambda: local_users.processes_of("jessica") == [child], "its block is given back", 30)
        time.sleep(4)
        assert manager.children() == [child], "it stays without a block"
    manager.stop()


HUNDRED = """
    import sys, time
    from concurrent.futures import ThreadPoolExecutor

    def where():
        import os

        return [os.getuid(), os.getppid()]

    c = Client()
    function = c.register_function(where)

    def submit(_):
        batch = c.create_batch(user_endpoint_config={"workers": 4})
        batch.add(function)
        (ids,) = c.batch_run(sys.argv[1], batch)["tasks"].values()
        return ids

    with ThreadPoolExecutor(int(sys.argv[2])) as pool:
        tasks = [task for ids in pool.map(submit, range(int(sys.argv[2]))) for task in ids]
    found = set()
    for task in tasks:
        while c.get_task(task)["pending"]:
            time.sleep(0.2)
        found.add(tuple(c.get_result(task)))
    report([len(tasks), sorted(found)])
"""


def test_a_hundred_submits_at_once_start_one_user_endpoint(service, manager, users, people):
    before = manager.log_text().count("Creating new user endpoint")
    ((count, found),) = service.sdk("4.19.0", people["alicia"]).run(HUNDRED, manager.id, 100)
    assert count == 100 and {uid for uid, _ in found} == {users["alicia"].pw_uid}
    assert manager.log_text().count("Creating new user endpoint") == before + 1


@pytest.mark.long
def test_twenty_people_at_once_have_a_user_endpoint_each(shared_testbed, service, users, people):
    """Four people for each account: identities make the difference."""
    everybody = {f"{name}-{number}": service.add_client(f"{name}-{number}") for name in local_users.NAMES for number in range(4)}
    mapping = {identity[0]: person.rpartition("-")[0] for person, identity in everybody.items()}
    manager = local_users.OwnManager(shared_testbed, service, mapping, name="crowd")
    shared_testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    running = {person: service.sdk("4.19.0", identity).start(HUNDRED, manager.id, 3) for person, identity in everybody.items()}
    for person, client in running.items():
        ((count, found),) = client.finish(170)
        assert count == 3 and [uid for uid, _ in found] == [users[person.rpartition("-")[0]].pw_uid], (person, found)
    children = manager.children()
    assert len(children) == 20
    assert sorted(local_users.processes_of(name).count(pid) for name in local_users.NAMES for pid in children).count(1) == 20
    assert manager.log_text().count("Creating new user endpoint") == 20
    manager.stop()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_user_endpoint_that_reports_late_takes_the_next_submit_and_runs_it_once(shared_testbed, service, users, people):
    """The first submit is answered before the client gives up. Without a task the user endpoint lives to its hard limit."""
    mapping = local_users.ids(people, "tory")
    real = binary("globus-compute-endpoint")
    wrapper = local_users.PLACE / f"slow-{os.getpid()}"
    wrapper.mkdir(mode=0o755, parents=True)
    program = wrapper / "globus-compute-endpoint"
    program.write_text(f'#!/bin/sh\nsleep 62\nexec {real} "$@"\n')
    program.chmod(0o755)
    template = local_users.TEMPLATE + "    idle_heartbeats_hard: 5\n"
    path = f"{wrapper}:{local_users.python().parent}:/usr/bin:/bin"
    manager = local_users.OwnManager(shared_testbed, service, mapping, name="late", template=template, environment={"PATH": path})
    shared_testbed.endpoints.append(manager)
    manager.configure()
    try:
        manager.start()
        config = {"soft": 2}
        began = time.monotonic()
        text = run(service, manager, people["tory"], config)
        assert time.monotonic() - began < 60
        (mine,) = user_endpoints(service, manager, people["tory"])
        assert "422" in text and mine in text and f"uep.{manager.id}.{mine}/endpoint.log" in text, text
        assert len(manager.children()) == 1
        # Nobody sends it a task: it was never used, so its soft limit does not count.
        status = f"/v2/endpoints/{mine}/status"
        rest = service.rest(people["tory"])
        until(lambda: rest.get(status)["status"] == "online", "it reports at last", 60)
        up = time.monotonic()
        (child,) = manager.children()
        manager.wait_for_log(rf"Command stopped normally \({child}\) ", 60)
        assert time.monotonic() - up > 3 * PERIOD, "longer than its soft limit"
        # The same again, with a submit that waits until it is there.
        client = service.sdk("4.19.0", people["tory"]).start(PARENT, manager.id, json.dumps(config))
        until(manager.children, "it is started again", 30)
        (text,) = client.finish()
        assert "422" in text
        answer = run(service, manager, people["tory"], config)
        assert isinstance(answer, int)
        assert len(manager.children()) == 1
    finally:
        shutil.rmtree(wrapper)


ROUNDS = """
    import random, sys, time

    def once(path, number):
        with open(path, "a") as file:
            file.write(f"{number}\\n")
        return number

    rounds, period, seed, path = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    dice = random.Random(seed)
    with executor(sys.argv[1], user_endpoint_config={"soft": 1, "period": period}) as ex:
        for number in range(rounds):
            assert ex.submit(once, path, number).result(timeout=100) == number
            # It ends between one and two periods after its last task.
            time.sleep(dice.uniform(0.9, 2.1) * period)
    report("done")
"""


@pytest.mark.long("idle-rounds")
@pytest.mark.timeout(1800)
def test_no_task_is_lost_or_doubled_in_two_hundred_submits_at_the_moment_of_an_idle_end(service, manager, users, people):
    """Four people, fifty each."""
    rounds = 50
    before = manager.log_text().count("Creating new user endpoint")
    clients = {}
    for name in ("alicia", "harper", "roberto", "tory"):
        path = Path(users[name].pw_dir) / "rounds"
        clients[path] = service.sdk("4.19.0", people[name]).start(ROUNDS, manager.id, rounds, PERIOD, name, path)
    for path, client in clients.items():
        assert client.finish(1500) == ["done"]
        assert path.read_text().split() == [str(number) for number in range(rounds)]
    started = manager.log_text().count("Creating new user endpoint") - before
    assert len(clients) * rounds / 10 < started, f"{started} starts: the moment was missed"
    assert not re.search(r"Command (return code|terminated)", manager.log_text())
