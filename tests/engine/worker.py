"""One worker process of the engine, spoken to as its node does."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import uuid
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "crates/engine/src/node/worker_python"
HEAD = struct.Struct(">IB")
TASK, ENDED, READY = 1, 2, 4
PACKET = 1 << 16

# A worker that says nothing for so long has failed the test.
PATIENCE = 60


def pack(*buffers):
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def source(text, args="[]", kwargs="{}"):
    """The packed call of the function `f` in a text, with arguments in JSON."""
    return pack("st\nf:" + text, "11\n" + args, "11\n" + kwargs)


class Worker:
    def __init__(self, interpreter, directory, environment=None, start_in=None, **config):
        library = Path(directory) / "library"
        shutil.copytree(SOURCE, library / "farcall-worker", dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns("__pycache__"))
        self.working_dir = Path(directory) / "work"
        self.log = Path(directory) / "worker.log"
        config = {
            "endpoint_id": "aaaaaaaa-0000-0000-0000-000000000000",
            "working_dir": str(self.working_dir),
            "run_in_sandbox": False,
            "allowed": [],
            "result_size_limit": 10 * 1024 * 1024,
            **config,
        }
        self.tasks, their_tasks = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        with their_tasks, theirs, open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    interpreter,
                    "-c",
                    f"(lambda path: path.__setitem__(slice(path[:1].count('')), [{str(library)!r}]))(__import__('sys').path); "
                    "__import__('farcall-worker').main()",
                ],
                pass_fds=[their_tasks.fileno(), theirs.fileno()],
                stdout=log,
                stderr=log,
                cwd=start_in,
                env={
                    **os.environ,
                    **(environment or {}),
                    "FARCALL_WORKER_SOCKETS": f"{their_tasks.fileno()},{theirs.fileno()}",
                    "FARCALL_WORKER_CONFIG": json.dumps(config),
                },
            )
        kind, body = self._read()
        assert kind == READY
        self.about = json.loads(body)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise EOFError(self.log.read_text())
            data += chunk
        return data

    def _read(self):
        length, kind = HEAD.unpack(self._exactly(HEAD.size))
        return kind, self._exactly(length - 1)

    def send(self, message, **extras):
        task_id = uuid.uuid4()
        header = json.dumps(extras).encode() if extras else b""
        body = task_id.bytes + struct.pack(">I", len(header)) + header + message
        frame = HEAD.pack(len(body) + 1, TASK) + body
        for at in range(0, len(frame), PACKET):
            self.tasks.send(frame[at : at + PACKET])
        kind, answer = self._read()
        assert kind == ENDED and answer[:16] == task_id.bytes and answer[16:17] == b"\x01"
        envelope = json.loads(answer[17:])
        assert envelope["message_type"] == "result"
        assert envelope["data"]["task_id"] == str(task_id)
        return envelope["data"]

    def run(self, buffer, **extras):
        """The result message of a packed task buffer."""
        message = {
            "message_type": "task",
            "data": {"task_id": str(uuid.uuid4()), "container_id": None, "container": None, "task_buffer": buffer},
        }
        return self.send(b"\x01" + json.dumps(message).encode(), **extras)

    def value(self, text, *args, **extras):
        """What the function `f` in a text returns, through JSON."""
        result = self.run(source(text, json.dumps(args)), result_serializers=[JSON], **extras)
        assert result["error_details"] is None, result["data"]
        return json.loads(result["data"][3:])

    def error(self, text, *args, **extras):
        """The text of the error that the function `f` in a text ends with."""
        result = self.run(source(text, json.dumps(args)), **extras)
        assert result["error_details"] is not None, result
        return result["data"]

    def close(self):
        self.tasks.close()
        self.socket.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()


JSON = "globus_compute_sdk.serialize.JSONData"


def bare():
    """The interpreter that the environments are made from: it has the standard library and nothing else."""
    return os.path.realpath(sys._base_executable)
