"""PostgreSQL restarts, dies, hangs, fails over, fills up and throws sessions out, under load. Each accepted task is answered
exactly once, none is lost, and the service recovers by itself; submits wait meanwhile or get 503 with `Retry-After`."""

import os
import random
import signal
import threading
import time

import pika
import pytest
from recording_client import RecordingClient
from postgres import Full, Postgres, Session
from processes import until
from testbed import binary

# Seconds of load before and between two faults.
CALM = 0.7


class Stage:
    """A server, a service on it, an endpoint, and a client."""

    def __init__(self, testbed, server, *others, database="farcall"):
        self.testbed = testbed
        self.server = server
        server.create(database)
        self.url = server.url(database, *others)
        self.service = testbed.service(configuration=f"store:\n  url: {self.url}\n")
        self.endpoint = testbed.endpoint(self.service)
        self.client = RecordingClient(testbed, self.service, self.endpoint)


@pytest.fixture
def server():
    with Postgres() as server:
        yield server


@pytest.fixture
def stage(testbed, server):
    stage = Stage(testbed, server)
    yield stage
    # The service stops in order only while its database is there.
    testbed.close()


def test_the_server_is_restarted_and_killed(stage):
    with stage.client as client:
        client.flows()
        stage.server.restart("fast")
        client.flows()
        stage.server.kill()
        time.sleep(CALM)
        stage.server.start()
        client.flows()
        stage.server.restart("immediate")
        client.flows()
        client.clean()


def log_in(url):
    """Connects to the service's broker, and returns why it could not."""
    try:
        pika.BlockingConnection(pika.URLParameters(f"{url}?heartbeat=0&stack_timeout=30")).close()
    except (pika.exceptions.AMQPError, OSError) as error:
        return error
    return None


def test_a_login_at_the_broker_is_not_refused_while_the_database_is_away(stage):
    """Upstream's endpoints give up for good when they are refused."""
    refused = (pika.exceptions.ProbableAuthenticationError, pika.exceptions.ProbableAccessDeniedError)
    url = stage.client.rest.get("/v2/get_amqp_result_connection_url")["connection_url"]
    wrong = url.replace("@", "x@")
    assert log_in(url) is None
    assert isinstance(log_in(wrong), refused)
    stage.server.stop()
    for tried in (url, wrong):
        error = log_in(tried)
        assert error is not None and not isinstance(error, refused), repr(error)
    stage.server.start()
    until(lambda: log_in(url) is None, "the login succeeds", 20)
    assert isinstance(log_in(wrong), refused)


def thrown_out(server, seconds, pause):
    """Ends the service's sessions again and again."""
    end = time.monotonic() + seconds
    thrown = 0
    while time.monotonic() < end:
        rows = server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'farcall' AND pid <> pg_backend_pid()"
        )
        thrown += len(rows)
        time.sleep(pause)
    return thrown


def test_its_sessions_are_ended_every_100_ms(stage):
    with stage.client as client:
        client.flows()
        assert thrown_out(stage.server, 4, 0.1) > 10
        client.flows()
        client.clean()


def pause(stage, seconds):
    with stage.client as client:
        client.flows()
        stage.server.pause()
        time.sleep(seconds)
        stage.server.resume()
        client.flows()
        client.clean()


def test_the_server_hangs(stage):
    pause(stage, 4)


@pytest.mark.long("postgres-faults")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [20, 45])
def test_the_server_hangs_for_long(stage, seconds):
    """After 15 seconds without any answer, the service gives its session up, and refuses until the server answers."""
    pause(stage, seconds)


@pytest.mark.long("postgres-faults")
@pytest.mark.timeout(300)
def test_its_sessions_are_ended_every_100_ms_for_a_minute(stage):
    with stage.client as client:
        client.flows()
        assert thrown_out(stage.server, 60, 0.1) > 100
        client.flows()
        client.clean()


@pytest.mark.long("postgres-faults")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2])
def test_faults_in_any_order(testbed, server, seed):
    """Two servers, by turns primary and standby; everything that can happen to them, for four minutes."""
    dice = random.Random(f"postgres {seed}")
    with server.standby() as standby:
        stage = Stage(testbed, server, standby)
        servers = [server, standby]
        end = time.monotonic() + 240
        with stage.client as client:
            while time.monotonic() < end:
                client.flows(timeout=60)
                primary, other = servers
                fault = dice.choice(["restart", "immediate", "kill", "pause", "end sessions", "fail over", "hang over"])
                print(f"{time.monotonic() - end + 240:5.1f} s: {fault}", flush=True)
                if fault in ("restart", "immediate"):
                    primary.restart("fast" if fault == "restart" else "immediate")
                elif fault == "kill":
                    primary.kill()
                    time.sleep(dice.uniform(0, 3))
                    primary.start()
                elif fault == "pause":
                    primary.pause()
                    time.sleep(dice.uniform(0.1, 12))
                    primary.resume()
                elif fault == "end sessions":
                    thrown_out(primary, dice.uniform(0.1, 3), dice.uniform(0, 0.2))
                else:
                    primary.pause() if fault == "hang over" else primary.kill()
                    other.promote()
                    time.sleep(dice.uniform(0, 8))
                    primary.resume()
                    client.flows(timeout=60)
                    primary.follow(other)
                    servers.reverse()
            client.clean(timeout=120)
        testbed.close()


def take_every_connection(server):
    """Holds every connection of a server, after it has ended the others'. Returns the sessions."""
    held = [Session(server)]
    end = time.monotonic() + 5
    while time.monotonic() < end:
        held[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'farcall%'")
        try:
            while True:
                held.append(Session(server))
        except Full:
            pass
        if len(held) == int(server.settings["max_connections"]):
            return held
    raise AssertionError(f"only {len(held)} connections could be taken")


def test_no_connection_is_left(testbed):
    with Postgres(settings={"max_connections": "20", "superuser_reserved_connections": "0", "max_wal_senders": "0"}) as server:
        stage = Stage(testbed, server)
        with stage.client as client:
            client.flows()
            held = take_every_connection(server)
            time.sleep(3)
            for session in held:
                session.close()
            client.flows()
            client.clean()
        testbed.close()


# Synchronous replication: what was answered is on both servers.


def last_number(server):
    """The number of the last row that waits to be sent."""
    return server.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('assignments', 'seq'))", "farcall")[0][0]


def fail_over(stage, primary, standby, end):
    """The primary ends, the standby becomes the primary, and the old one comes back as its standby."""
    before = int(last_number(primary))
    end(primary)
    standby.promote()
    stage.client.flows()
    # The standby may lack the last rows of a primary without synchronous replication: nobody gets their numbers again.
    assert int(last_number(standby)) > before + 1_000_000
    primary.follow(standby)
    stage.client.flows()


def test_a_standby_takes_over_and_the_old_primary_comes_back(testbed, server):
    with server.standby() as standby:
        stage = Stage(testbed, server, standby)
        with stage.client as client:
            client.flows()
            fail_over(stage, server, standby, Postgres.kill)
            fail_over(stage, standby, server, Postgres.stop)
            client.clean()
        testbed.close()


def test_a_standby_takes_over_from_a_primary_that_hangs(testbed, server):
    """The old primary answers again later, as a primary that nobody has fenced off: it may not be used."""
    with server.standby() as standby:
        stage = Stage(testbed, server, standby)
        with stage.client as client:
            client.flows()
            server.pause()
            standby.promote()
            client.flows(timeout=40)
            server.resume()
            time.sleep(1)
            client.flows()
            client.clean()
        testbed.close()


def fill(testbed, times=1):
    with Postgres(size_mib=96) as server:
        stage = Stage(testbed, server)
        with stage.client as client:
            for _ in range(times):
                client.flows(timeout=60)
                refused = client.statuses[503]
                server.fill()
                until(lambda: client.statuses[503] > refused + 2 or not server.running(), "the disk is full", 30)
                time.sleep(CALM)
                server.free()
                if not server.running():
                    # Without room for its log it ends, and whoever watches over it starts it again.
                    server.start()
                client.flows(timeout=60)
            client.clean()
        testbed.close()


def test_its_disk_is_full(testbed):
    fill(testbed)


@pytest.mark.long("postgres-faults")
@pytest.mark.timeout(600)
def test_its_disk_is_full_again_and_again(testbed):
    fill(testbed, times=8)


def test_a_second_service_is_refused_and_the_first_goes_on(stage):
    with stage.client as client:
        client.flows()
        second = stage.testbed.directory / "second-data"
        command = [binary("farcall"), "serve", "--data-dir", second, "--set", f"store.url={stage.url}"]
        process = stage.testbed.start("second", command, stage.testbed.environment())
        assert process.wait(20) == 1
        assert "another farcall service uses the database" in process.output()
        client.flows()
        client.clean()


def test_a_killed_service_starts_again_while_its_session_still_holds_the_lock(stage):
    with stage.client as client:
        client.flows()
        # The server can't notice that its client has gone.
        holder = stage.server.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")[0][0]
        os.kill(int(holder), signal.SIGSTOP)
        stage.service.kill()
        waking = threading.Timer(3, os.kill, (int(holder), signal.SIGCONT))
        waking.start()
        stage.service.start()
        waking.join()
        client.flows()
        client.clean(redelivered=True)
