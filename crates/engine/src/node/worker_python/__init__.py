"""The worker of a Farcall node: takes one task after another from a socket, runs it, answers on another.

Needs Python 3.8 or later and nothing else. It imports little, because a block's first result waits for it, and it
leaves `__main__` alone, because that is where the functions of users keep what they want to find again. The name of this
package is none that a program could import by accident, and its directory is not on the path when functions run.

Frames, both ways: four bytes of length (big-endian, of all that follows), one byte of kind, the body. A task comes in
packets of at most `PACKET` bytes, and a task is this worker's from the moment it has read the first: its node may take
back what lies unread. So nothing may be read ahead here, and every answer is written before the next task is read.
"""

import gc
import json
import os
import struct
import sys
import time

from . import payloads
from .errors import CouldNotExecuteUserTask, MessageTooLarge, ResultTooLarge, Unsendable

TASK, ENDED, READY = 1, 2, 4
HEAD = struct.Struct(">IB")
EXTRAS_LENGTH = struct.Struct(">I")
PACKET = 1 << 16
# A result message with its text is below 80 MiB, whatever limit is configured.
LONGEST_TEXT = 79 << 20

# json.loads() also looks for spaces around; they cost as much as parsing a small message.
parse = json.JSONDecoder().raw_decode

scan = json.decoder.scanstring
BEFORE_ID = '{"message_type":"task","data":{"task_id":"'
AFTER_ID = len(BEFORE_ID) + 36
BEFORE_BUFFER = '","container_id":null,"container":null,"task_buffer":"'

MESSAGE_NAMES = {
    "task": "Task",
    "task_cancel": "TaskCancel",
    "result": "Result",
    "ep_status_report": "EPStatusReport",
    "manager_status_report": "ManagerStatusReport",
    "task_transition": "TaskTransition",
    "container": "Container",
    "containerimage": "ContainerImage",
}


def main():
    del sys.path[0]  # this library's place; functions have no business here
    config = json.loads(os.environ.pop("FARCALL_WORKER_CONFIG"))
    sockets = [int(number) for number in os.environ.pop("FARCALL_WORKER_SOCKETS").split(",")]
    for name in os.environ.pop("FARCALL_WORKER_OWN_VARIABLES", "").split(","):
        os.environ.pop(name, None)
    for socket in sockets:
        os.set_inheritable(socket, False)
    # What a function forks has no part in the conversation of worker and node.
    os.register_at_fork(after_in_child=lambda: close(sockets))
    # What is here now stays: no collection needs to look at it again.
    gc.freeze()
    pairs = list(zip(sockets[::2], sockets[1::2]))
    if "thread_name_prefix" in config:
        from . import threads

        threads.run(pairs, config)
    else:
        Worker(*pairs[0], config).run()


def close(sockets):
    for socket in sockets:
        try:
            os.close(socket)
        except OSError:
            pass  # the function has closed it


# Kept here: functions may replace what they find in a module.
process_id = os.getpid


class Worker:
    # What a function may raise without ending its process.
    caught = Exception

    def __init__(self, tasks, results, config):
        self.tasks, self.results = tasks, results
        self.process = process_id()
        self.working_dir = os.path.realpath(config["working_dir"])
        self.sandbox = config["run_in_sandbox"]
        self.limit = config["result_size_limit"]
        self.allowed = frozenset(config["allowed"])
        self.details = details(config["endpoint_id"])
        self.details_json = json.dumps(self.details, separators=(",", ":")).encode()

    def run(self):
        about = {
            "executable": sys.executable,
            "python": self.details["python_version"],
            "dill": self.details["dill_version"],
            "sdk": self.details["globus_compute_sdk_version"],
        }
        self.write(READY, json.dumps(about).encode())
        while True:
            frame = self.read()
            if frame[4] == TASK:
                self.write(ENDED, frame[5:21], *self.task(frame))

    def read(self):
        """The next frame, whole; ends the worker when its node is gone."""
        frame = os.read(self.tasks, PACKET)
        if not frame:
            os._exit(0)
        whole = HEAD.unpack_from(frame)[0] + 4
        if len(frame) == whole:
            return frame
        start, frame = frame, bytearray(whole)
        frame[: len(start)] = start
        at = len(start)
        with memoryview(frame) as view:
            while at < whole:
                count = os.readv(self.tasks, [view[at:]])
                if not count:
                    os._exit(0)
                at += count
        return frame

    def write(self, kind, *parts):
        # Gathered by the system, not here: what is large is copied once.
        parts = (HEAD.pack(sum(map(len, parts)) + 1, kind),) + parts
        whole, written = sum(map(len, parts)), os.writev(self.results, parts)
        if written < whole:
            rest = memoryview(b"".join(parts))
            while written < whole:
                written += os.write(self.results, rest[written:])

    def task(self, frame):
        start = time.time_ns()
        task_id = hyphenated(frame[5:21].hex())
        end_of_extras = 25 + EXTRAS_LENGTH.unpack_from(frame, 21)[0]
        extras = json.loads(frame[25:end_of_extras]) if end_of_extras > 25 else {}
        try:
            self.enter(task_id)
        except Exception:
            return self.not_entered(task_id, start)
        error = b"null"
        try:
            # Slices of what is large are views.
            message = frame if len(frame) <= PACKET else memoryview(frame)
            result = self.call(message[end_of_extras:], extras)
        except self.caught as exception:
            text, code, message = told(exception)
            result = json.dumps(text).encode()
            error = json.dumps({"code": code, "user_message": message}, separators=(",", ":")).encode()
            note(text)
        except BaseException as exception:  # SystemExit, KeyboardInterrupt: this process is to end
            leave(exception)
        flush()
        if process_id() != self.process:
            # A child that the function has forked and that has come back from it. Its parent answers.
            os._exit(0 if error == b"null" else 1)
        return packed(task_id, result, self.details_json, error, b"worker", b"execution-start", start)

    def enter(self, task_id):
        """Makes the environment and the directory that the function finds."""
        if is_set("GC_TASK_SANDBOX_DIR"):
            del os.environ["GC_TASK_SANDBOX_DIR"]
        os.environ["GC_TASK_UUID"] = task_id
        directory = self.working_dir
        if self.sandbox:
            directory = os.path.join(directory, task_id)
            os.environ["GC_TASK_SANDBOX_DIR"] = directory
        try:
            os.chdir(directory)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
            os.chdir(directory)

    def call(self, message, extras):
        """What the function returns, as it stands in the answer."""
        function, args, kwargs = payloads.decode_task(
            task_buffer(message), self.allowed, extras.get("function_python")
        )
        if is_set("GC_TASK_TIMEOUT"):
            from .timeout import limited

            value = limited(float(os.environ["GC_TASK_TIMEOUT"]), function, args, kwargs)
        else:
            value = function(*args, **kwargs)
        result = payloads.encode_result(value, extras.get("result_serializers"))
        if len(result) > self.limit:
            raise ResultTooLarge(len(result), self.limit)
        text = result.json() if isinstance(result, payloads.Base64) else json.dumps(result).encode()
        if len(text) > LONGEST_TEXT:
            raise MessageTooLarge(len(text), LONGEST_TEXT)
        return text

    def not_entered(self, task_id, start):
        """The engine's own failure, in the form that such failures have."""
        import traceback

        text = "+" * 68 + "\n" + traceback.format_exc() + "-" * 68
        note(text)
        error = json.dumps(dict(zip(("code", "user_message"), UNSAID))).encode()
        text = json.dumps(text).encode()
        return packed(task_id, text, b"null", error, b"interchange", b"waiting-for-launch", start)


def packed(task_id, result, details, error, actor, first_state, start):
    """A result message in its parts; what is JSON comes as JSON."""
    return (
        b'\x01{"message_type":"result","data":{"task_id":"%b","data":' % task_id.encode(),
        result,
        b',"details":%b,"error_details":%b,"task_statuses":[{"timestamp":%d,"state":"%b","actor":"%b"},'
        b'{"timestamp":%d,"state":"execution-end","actor":"%b"}]}}'
        % (details, error, start, first_state, actor, time.time_ns(), actor),
    )


def hyphenated(digits):
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_set(name):
    """Whether a variable is set. Asking `os.environ` for one that is not takes as long as making a whole answer."""
    known = getattr(os.environ, "_data", None)
    return name in os.environ if type(known) is not dict else name.encode() in known


def task_buffer(message):
    if message[:1] != b"\x01":
        raise ValueError("message had unknown protocol version %d" % message[0] if message else "empty message")
    text = str(message[1:], "utf-8")
    if text.startswith(BEFORE_ID) and text.startswith(BEFORE_BUFFER, AFTER_ID):
        # As it nearly always stands: only the one string needs to be read.
        buffer, end = scan(text, AFTER_ID + len(BEFORE_BUFFER))
        if text[end:] == "}}":
            return buffer
    envelope = parse(text)[0] if text[:1] == "{" else json.loads(text)
    kind = envelope.get("message_type")
    if kind != "task":
        raise CouldNotExecuteUserTask(
            "Non Task-type message received: %s (from: [%d bytes] 0x%s...)"
            % (MESSAGE_NAMES.get(kind, kind), len(message), message[:8].hex())
        )
    return envelope["data"]["task_buffer"]


def told(exception):
    """What the user is told of an exception: text, code and message."""
    if isinstance(exception, (CouldNotExecuteUserTask, ResultTooLarge)):
        text = repr(exception)
        if isinstance(exception, ResultTooLarge):
            text += "\n" + exception.explanation()
        return text, type(exception).__name__, "remote error: %s" % (exception,)
    if isinstance(exception, Unsendable):
        return "TypeError: %s\n" % exception, *UNSAID
    import traceback

    trace = exception.__traceback__
    here = os.path.dirname(__file__)
    # The frames of the agent say nothing to the user; the last one stays, whoever it belongs to.
    while trace.tb_next is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == here:
        trace = trace.tb_next
    try:
        text = "".join(traceback.format_exception(type(exception), exception, trace))
    except Exception as second:  # an exception that can't be printed
        text = "%s (%s while printing it)\n" % (type(exception).__name__, type(second).__name__)
    return (
        # Lone surrogates can't cross as UTF-8.
        text.encode("utf-8", "backslashreplace").decode(),
        *UNSAID,
    )


# Code and message of errors whose text says it.
UNSAID = "RemoteExecutionError", "An error occurred during the execution of this task"


def note(text):
    try:
        sys.stderr.write(text + "\n")
    except Exception:
        pass  # the function may have done anything to it


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the function may have closed it


def leave(exception):
    """A function wants this process to end, and it ends at once, whatever threads are left."""
    if not isinstance(exception, SystemExit):
        note(told(exception)[0])
    flush()
    code = exception.code if isinstance(exception, SystemExit) else 1
    os._exit(0 if code is None else code & 0xFF if isinstance(code, int) else 1)


def details(endpoint_id):
    return {
        "os": operating_system(),
        "dill_version": installed("dill"),
        "python_version": "%d.%d.%d%s" % (sys.version_info[:3] + (sys.version.split()[0].lstrip("0123456789."),)),
        "globus_compute_sdk_version": installed("globus_compute_sdk"),
        "endpoint_id": endpoint_id,
    }


def operating_system():
    """As platform.platform() has it, which takes longer to import than a task to run."""
    try:
        name, _, release, _, machine = os.uname()
        libc = os.confstr("CS_GNU_LIBC_VERSION").replace(" ", "")
        return "%s-%s-%s-with-%s" % (name, release.replace(" ", "_"), machine, libc)
    except (AttributeError, ValueError, OSError):
        import platform

        return platform.platform()


def installed(package):
    """The version of an installed package, without importing it; None when it is not there."""
    for directory in sys.path:
        try:
            names = os.listdir(directory or ".")
        except OSError:
            continue
        if package in names or package + ".py" in names:
            for name in names:
                if name.startswith(package + "-") and name.endswith((".dist-info", ".egg-info")):
                    return name[len(package) + 1 :].rsplit(".", 1)[0].split("-py")[0]
    try:
        from importlib.util import find_spec

        if find_spec(package) is None:
            return None
        return getattr(__import__(package), "__version__", None)
    except Exception:
        return None
