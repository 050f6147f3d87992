"""Runs ShellFunction and MPIFunction without globus_compute_sdk.

The payloads name the SDK's classes, and so must the results, which the client reads with its own SDK. The classes here
have those names. Unlike the original, a command that outlives its walltime is killed, and output that is not text
does not cost the user the result.
"""

import contextlib
import os
import pickle
import sys

SHELL = "globus_compute_sdk.sdk.shell_function"
MPI = "globus_compute_sdk.sdk.mpi_function"

SANDBOX_WARNING = (
    "WARNING: Task sandboxing will not work due to endpoint misconfiguration. Please enable sandboxing on the "
    "remote endpoint. "
)


class ShellResult:
    def __init__(self, cmd, stdout, stderr, returncode, exception_name=None):
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.returncode = returncode
        self.exception_name = exception_name


class ShellFunction:
    # Older releases do not send this one.
    return_dict = False

    def __call__(self, **kwargs):
        return self.execute_cmd_line(self.cmd.format(**kwargs))

    def execute_cmd_line(self, command):
        import signal
        import subprocess

        sandbox = os.environ.get("GC_TASK_SANDBOX_DIR")
        if sandbox:
            os.makedirs(sandbox, exist_ok=True)
            os.chdir(sandbox)
        with self.stream(self.stdout, "stdout") as out, self.stream(self.stderr, "stderr") as err:
            if not sandbox:
                print(SANDBOX_WARNING, file=err)
            exception_name = None
            process = subprocess.Popen(
                command,
                stdout=out,
                stderr=err,
                shell=True,
                executable="/bin/bash",
                close_fds=False,
                start_new_session=self.walltime is not None,
            )
            try:
                returncode = process.wait(timeout=self.walltime)
                if returncode != 0:
                    exception_name = "subprocess.CalledProcessError"
            except subprocess.TimeoutExpired:
                returncode, exception_name = 124, "subprocess.TimeoutExpired"
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            result = {
                "cmd": command,
                "stdout": self.snippet(out),
                "stderr": self.snippet(err),
                "returncode": returncode,
                "exception_name": exception_name,
            }
        if self.return_dict:
            return result
        # If a function has imported the SDK meanwhile, only the SDK's class can be pickled.
        return getattr(sys.modules.get(SHELL), "ShellResult", ShellResult)(**result)

    @staticmethod
    def stream(name, suffix):
        if not name:
            import random

            letters = "".join(random.choice("abcdefghijklmnopqrstuvwxyz0123456789_") for _ in range(8))
            name = os.path.join(os.getcwd(), "%s.%s.%s" % (os.environ.get("GC_TASK_UUID", ""), letters, suffix))
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        return open(name, "a+", errors="backslashreplace")

    def snippet(self, stream):
        import collections

        stream.seek(0)
        return "".join(collections.deque(stream, maxlen=self.snippet_lines))


class MPIFunction(ShellFunction):
    def __call__(self, **kwargs):
        return self.execute_cmd_line("$PARSL_MPI_PREFIX " + self.cmd.format(**kwargs))


ShellResult.__module__ = ShellFunction.__module__ = SHELL
MPIFunction.__module__ = MPI

STAND_INS = {(cls.__module__, cls.__name__): cls for cls in (ShellResult, ShellFunction, MPIFunction)}


def writer(pickler):
    """A pickler written in Python that writes the classes here by the names of the SDK's.

    The usual pickler looks a class up by its name first. So these would have to be among the modules of this process,
    where functions would find them, too.
    """

    class Writer(pickler):
        def save(self, value, *more, **options):
            if not any(value is cls for cls in STAND_INS.values()) or id(value) in self.memo:
                return super().save(value, *more, **options)
            super().save(value.__module__)
            super().save(value.__name__)
            self.write(pickle.STACK_GLOBAL)
            self.memoize(value)

    return Writer
