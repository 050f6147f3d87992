"""The worker's main loop: reads a task, calls its function, writes the result.

Frames, both ways: four bytes of length (big-endian, of all that follows), one byte of kind, the body. A task arrives in
packets of at most `PACKET` bytes. It is this worker's once the first packet has been read; until then its node may take
it back. So nothing is read ahead, and every answer is written before the next task is read.
"""

import builtins
import json
import os
import struct
import sys
import time
from _signal import ITIMER_REAL, setitimer

from . import payloads
from .errors import CouldNotExecuteUserTask, MessageTooLarge, ResultTooLarge, Unsendable

TASK, ENDED, READY = 1, 2, 4
HEAD = struct.Struct(">IB")
EXTRAS_LENGTH = struct.Struct(">I")
PACKET = 1 << 16
# A longer error is cut: its beginning and its end are kept.
LONGEST_ERROR = 10 << 20
# Exit status of a process whose connection to its node is closed.
DISCONNECTED = 197
# A result message is below 80 MiB with its text, whatever limit is configured.
LONGEST_TEXT = 79 << 20

# json.loads() also skips spaces around, which takes as long as parsing a small message.
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


# What the worker needs to answer, bound here because functions may replace names in the modules.
process_id, leave_process = os.getpid, os._exit
receive, receive_into, send, send_parts = os.read, os.readv, os.write, os.writev
change_directory, remove_directory = os.chdir, os.rmdir
to_json, from_json, now = json.dumps, json.loads, time.time_ns
len, map, sum, type, isinstance = len, map, sum, type, isinstance
OUTPUT = sys.stdout, sys.stderr


class Worker:
    # The exceptions with which a function ends this process, and whether a function's alarm reaches this worker.
    ends, has_alarm = SystemExit, True

    def __init__(self, tasks, results, config):
        self.tasks, self.results = tasks, results
        self.process = process_id()
        # Whether a function has damaged this process so that no other may run in it.
        self.damaged = False
        self.umask = os.umask(0)
        os.umask(self.umask)
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
        # After any failure here no answer can follow: the process ends, even if threads of a function still run.
        status = 1
        try:
            self.write(READY, to_json(about).encode())
            while not self.damaged:
                frame = self.read()
                if frame[4] == TASK:
                    self.write(ENDED, frame[5:21], *self.answer(frame))
        except OSError:
            status = DISCONNECTED
        except BaseException as exception:
            log(describe(exception)[0])
        finally:
            leave_process(status)

    def read(self):
        """The next frame, whole; ends the worker when its node is gone."""
        frame = receive(self.tasks, PACKET)
        if not frame:
            leave_process(DISCONNECTED)
        whole = HEAD.unpack_from(frame)[0] + 4
        if len(frame) == whole:
            return frame
        start, frame = frame, bytearray(whole)
        frame[: len(start)] = start
        at = len(start)
        with memoryview(frame) as view:
            while at < whole:
                count = receive_into(self.tasks, [view[at:]])
                if not count:
                    leave_process(DISCONNECTED)
                at += count
        return frame

    def write(self, kind, *parts):
        # One gathering write: a large result is not copied here.
        parts = (HEAD.pack(sum(map(len, parts)) + 1, kind),) + parts
        whole, written = sum(map(len, parts)), send_parts(self.results, parts)
        if written < whole:
            rest = memoryview(b"".join(parts))
            while written < whole:
                written += send(self.results, rest[written:])

    def answer(self, frame):
        start, task_id = now(), hyphenated(frame[5:21].hex())
        error = b"null"
        try:
            end_of_extras = 25 + EXTRAS_LENGTH.unpack_from(frame, 21)[0]
            extras = from_json(frame[25:end_of_extras]) if end_of_extras > 25 else {}
            try:
                self.enter(task_id)
            except OSError:
                return self.not_entered(task_id, start)
            try:
                # Slices of a memoryview copy nothing.
                message = frame if len(frame) <= PACKET else memoryview(frame)
                result = self.call(message[end_of_extras:], extras)
            except self.ends as exception:
                exit_with(exception)
            except BaseException as exception:
                text, code, message = describe(exception)
                if not is_intact():
                    self.damaged, text = True, text + DAMAGED
                result, error = failed(text, code, message)
            if self.has_alarm and "signal" in sys.modules:
                # An alarm that the function left set would interrupt another function.
                setitimer(ITIMER_REAL, 0)
            self.damaged = not flush() or self.damaged
        except BaseException as exception:
            # The worker itself failed: a part of Python that it needs has been changed.
            self.damaged = True
            result, error = failed(describe(exception)[0] + DAMAGED, *GENERIC_ERROR)
        if process_id() != self.process:
            # A child that the function forked has returned from it. Only the parent answers.
            leave_process(0 if error == b"null" else 1)
        if self.sandbox:
            self.leave_sandbox(task_id)
        return result_message(task_id, result, self.details_json, error, b"worker", b"execution-start", start)

    def leave_sandbox(self, task_id):
        """Removes the sandbox if it is empty. Files that a function leaves there stay, as upstream's do."""
        try:
            change_directory(self.working_dir)
            remove_directory(task_id)
        except OSError:
            pass  # not empty, or removed by the function

    def enter(self, task_id):
        """Sets the variables and the working directory of the function."""
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
            os.umask(self.umask)  # a function may have left one that allows nothing
            os.makedirs(directory, exist_ok=True)
            os.chdir(directory)

    def call(self, message, extras):
        """Calls the function, and returns its result as JSON text."""
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
        text = result.json() if isinstance(result, payloads.Base64) else to_json(result).encode()
        if len(text) > LONGEST_TEXT:
            raise MessageTooLarge(len(text), LONGEST_TEXT)
        return text

    def not_entered(self, task_id, start):
        """The answer when the working directory can't be entered: a failure of the engine, in upstream's form."""
        import traceback

        text = "+" * 68 + "\n" + traceback.format_exc() + "-" * 68
        result, error = failed(text, *GENERIC_ERROR)
        return result_message(task_id, result, b"null", error, b"interchange", b"waiting-for-launch", start)


# Added to the error of a task whose worker process can run no other.
DAMAGED = (
    "\nThis worker process was damaged: this function or an earlier one has changed something that Python itself needs "
    "(builtins, modules such as os and json, limits). The worker was ended. If this function is not the cause, submit it "
    "again.\n"
)


def is_intact():
    """Whether this process can still do what every task needs. Checked when a function has failed."""
    try:
        return (
            all(sys.modules.get(module.__name__) is module for module in NEEDED)
            and sys.getrecursionlimit() >= 200
            and payloads.decode_task(SAMPLE_TASK, (), None) == [len, (), {"a": [1]}]
            and payloads.decode(str(payloads.encode_result({"a": [1]}, ())), ()) == {"a": [1]}
            and json.loads(json.dumps({"a": [1]})) == {"a": [1]}
            and "NotADirectoryError" in printed(NotADirectoryError())
            and "GC_TASK_UUID" in os.environ
            and os.close(os.open(os.devnull, os.O_RDONLY)) is None
        )
    except BaseException:
        return False


NEEDED = builtins, json, os, sys, time, payloads.pickles.pickle
# A call of `len`.
SAMPLE_TASK = "".join(
    "%d\n%s" % (len(part), part) for part in ("00\ngARjYnVpbHRpbnMKbGVuCi4=\n", "00\ngAQpLg==\n", '11\n{"a": [1]}')
)


def failed(text, code, message):
    """Result and error details of a failed task, as JSON text."""
    log(text)
    error = to_json({"code": code, "user_message": message}, separators=(",", ":")).encode()
    return to_json(text).encode(), error


def result_message(task_id, result, details, error, actor, first_state, start):
    """The parts of a result message. `result`, `details` and `error` are JSON text."""
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
    """Whether a variable is set. `name in os.environ` takes as long as a whole answer when it is not set."""
    known = getattr(os.environ, "_data", None)
    return name in os.environ if type(known) is not dict else name.encode() in known


def task_buffer(message):
    if message[:1] != b"\x01":
        raise ValueError("message had unknown protocol version %d" % message[0] if message else "empty message")
    text = str(message[1:], "utf-8")
    if text.startswith(BEFORE_ID) and text.startswith(BEFORE_BUFFER, AFTER_ID):
        # The usual form: only one string needs to be parsed.
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


def describe(exception):
    """Text, code and message that the user gets for an exception."""
    if isinstance(exception, (CouldNotExecuteUserTask, ResultTooLarge)):
        text = repr(exception)
        if isinstance(exception, ResultTooLarge):
            text += "\n" + exception.explanation()
        return text, type(exception).__name__, "remote error: %s" % (exception,)
    if isinstance(exception, Unsendable):
        return "TypeError: %s\n" % exception, *GENERIC_ERROR
    try:
        text = printed(exception)
    except BaseException as second:  # an exception that can't be printed
        text = "%s (%s while printing it)\n" % (type(exception).__name__, type(second).__name__)
    if len(text) > LONGEST_ERROR:
        left_out = len(text) - LONGEST_ERROR
        start, end = text[: LONGEST_ERROR // 2], text[-LONGEST_ERROR // 2 :]
        text = "%s\n[%d characters of this error are left out]\n%s" % (start, left_out, end)
    # Lone surrogates can't cross as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode(), *GENERIC_ERROR


def printed(exception):
    import traceback

    trace = exception.__traceback__
    if trace is None:
        return "".join(traceback.format_exception_only(type(exception), exception))
    here = os.path.dirname(__file__)
    # Frames of the worker itself do not help the user. The last frame stays in any case.
    while trace.tb_next is not None and os.path.dirname(trace.tb_frame.f_code.co_filename) == here:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(exception), exception, trace))


# Code and message of all errors that have none of their own.
GENERIC_ERROR = "RemoteExecutionError", "An error occurred during the execution of this task"


def log(text):
    try:
        sys.stderr.write(text + "\n")
    except BaseException:
        pass  # the function may have replaced or closed it


def flush():
    """Flushes what the function has printed. Returns whether the next function can print."""
    works = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            # A stream that the function put in its place may fail; only a broken original counts.
            works = works and stream is not OUTPUT[0] and stream is not OUTPUT[1]
    return works


def exit_with(exception):
    """Ends the process as `sys.exit` asked, even if threads of the function still run."""
    flush()
    code = exception.code
    leave_process(0 if code is None else code & 0xFF if isinstance(code, int) else 1)


def details(endpoint_id):
    return {
        "os": operating_system(),
        "dill_version": installed("dill"),
        "python_version": "%d.%d.%d%s" % (sys.version_info[:3] + (sys.version.split()[0].lstrip("0123456789."),)),
        "globus_compute_sdk_version": installed("globus_compute_sdk"),
        "endpoint_id": endpoint_id,
    }


def operating_system():
    """What platform.platform() returns. Importing that module takes longer than a task."""
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
