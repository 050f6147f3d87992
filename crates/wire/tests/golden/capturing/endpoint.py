"""Real endpoints: what they register with, what they say of themselves, how they answer tasks."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from globus_compute_common.messagepack import pack
from globus_compute_common.messagepack.message_types import Task
from globus_compute_sdk.serialize import ComputeSerializer, JSONData, PureSourceTextInspect
from pika import BasicProperties

from .broker import Broker
from .known import CLIENT, ENDPOINT, FUNCTION, OTHER_FUNCTION, OTHER_TASK, TASK, uid
from .recorder import Recorder
from .sdk import TOKEN, VERSIONS

PACKAGE = "globus-compute-endpoint"

THREADS = """\
heartbeat_period: 5
detach_endpoint: false
allowed_functions:
  - {function}
display_name: Ein Rechner für alle
engine:
  type: ThreadPoolEngine
  max_workers: 1
"""

# Without a maximum of workers, 3.x reports infinity.
BLOCKS = """\
heartbeat_period: 5
detach_endpoint: false
engine:
  type: GlobusComputeEngine
  provider:
    type: LocalProvider
    init_blocks: 0
    min_blocks: 0
    max_blocks: 1
"""


def capture(shelf, options):
    recorder = Recorder()
    os.environ.update(GLOBUS_COMPUTE_CLIENT_ID=CLIENT, GLOBUS_COMPUTE_CLIENT_SECRET="a secret")
    recorder.will("GET", "/v2/version", VERSIONS)
    recorder.will("POST", "/v2/oauth2/token", TOKEN)
    broker = Broker()
    threads = THREADS.format(function=FUNCTION)
    if has_plain_endpoints():
        registers(recorder, broker, shelf, "threads", threads)
        registers(recorder, broker, shelf, "threads", threads, again=True)
        with running(recorder, broker, "threads", threads):
            works(broker, shelf, "threads")
        with running(recorder, broker, "blocks", BLOCKS):
            lives(broker, shelf, "blocks")
    else:
        with user_endpoint(broker, threads):
            works(broker, shelf, "threads")
        broker.published.clear()
        with user_endpoint(broker, BLOCKS):
            lives(broker, shelf, "blocks")
    recorder.close()


def has_plain_endpoints():
    from importlib.metadata import version

    return int(version("globus-compute-endpoint").split(".")[0]) < 4


def program():
    return str(Path(sys.executable).parent / "globus-compute-endpoint")


class running:
    """A plain endpoint, until it has said its last."""

    def __init__(self, recorder, broker, name, config):
        directory = Path(os.environ["GLOBUS_COMPUTE_USER_DIR"]) / name
        if not directory.exists():
            subprocess.run([program(), "configure", name], check=True, capture_output=True)
        (directory / "config.yaml").write_text(config)
        recorder.will("POST", "/v3/endpoints", broker.registration(ENDPOINT))
        recorder.will("PUT", f"/v3/endpoints/{ENDPOINT}", broker.registration(ENDPOINT))
        broker.published.clear()
        broker.consumers.clear()
        self.process = subprocess.Popen([program(), "start", name], stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *why):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class user_endpoint(running):
    """A user endpoint as a manager of 4.x starts it."""

    def __init__(self, broker, config):
        broker.published.clear()
        broker.consumers.clear()
        start = {
            "amqp_creds": broker.registration(ENDPOINT),
            "config": re.sub("detach_endpoint.*\n", "", config),
            "ep_info": {"posix_ppid": os.getpid()},
        }
        name = f"uep.{OTHER_FUNCTION}.{ENDPOINT}"
        directory = Path(os.environ["GLOBUS_COMPUTE_USER_DIR"]) / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.process = subprocess.Popen([program(), "_start-user-endpoint", name], stdin=subprocess.PIPE)
        self.process.stdin.write(json.dumps(start).encode())
        self.process.stdin.close()


def registers(recorder, broker, shelf, name, config, again=False):
    with recorder.asking() as heard, running(recorder, broker, name, config):
        broker.heard(lambda exchange, *rest: exchange == "heartbeats")
    asked = [asked for asked in heard if asked.path.startswith("/v3/endpoints")]
    shelf.put(PACKAGE, f"register-{name}{'-again' if again else ''}.request.json", asked[-1].body)


def lives(broker, shelf, name):
    heartbeat = broker.heard(lambda exchange, *rest: exchange == "heartbeats")
    shelf.put(PACKAGE, f"heartbeat-{name}.bin", heartbeat[3])


def source(text):
    return f"st\n{text}"


def works(broker, shelf, name):
    lives(broker, shelf, name)
    serializer = ComputeSerializer(strategy_code=PureSourceTextInspect(), strategy_data=JSONData())
    call = serializer.pack_buffers(["11\n[20, 22]", "11\n{}"])

    def task(task_id, function, code, **headers):
        properties = BasicProperties(
            headers={"function_uuid": function, "task_uuid": task_id, "resource_specification": "null", **headers}
        )
        buffer = serializer.pack_buffers([source(code)]) + call
        message = pack(Task(task_id=uid(task_id), task_buffer=buffer))
        broker.hand(f"{ENDPOINT}.tasks", properties, message)
        result = broker.heard(lambda exchange, key, properties, body: task_id.encode() in body)
        with broker.changed:
            broker.published.remove(result)
        return result[3]

    add = "f:def f(x, y):\n    return x + y\n"
    wanted = ["globus_compute_sdk.serialize.JSONData"]
    shelf.put(PACKAGE, "result.bin", task(TASK, FUNCTION, add))
    shelf.put(PACKAGE, "result-json.bin", task(TASK, FUNCTION, add, result_serializers=wanted))
    fails = 'f:def f(x, y):\n    raise ValueError("é😀")\n'
    shelf.put(PACKAGE, "result-failed.bin", task(OTHER_TASK, FUNCTION, fails))
    if has_plain_endpoints():
        # No UTF-8 holds it. 4.x fails to pack such a result, and says so in another.
        lone = fails.replace('"é😀"', "chr(0xdcff)")
        shelf.put(PACKAGE, "result-lone-surrogate.bin", task(OTHER_TASK, FUNCTION, lone))
    shelf.put(PACKAGE, "result-not-permitted.bin", task(OTHER_TASK, OTHER_FUNCTION, add))
