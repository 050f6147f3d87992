"""Tasks that write a line when they begin, and run until the test opens their gate. So a test can stop a program while they
run, and count how often each one ran."""

from processes import until

# `gated` runs in a worker, the rest in the client.
FUNCTIONS = """
import sys, time
endpoint, marks = sys.argv[1:]

def gated(marks, name):
    import os, pathlib, time
    with open(pathlib.Path(marks, name), "a") as begun:
        begun.write(f"{os.getpid()}\\n")
    end = time.monotonic() + 120
    while not pathlib.Path(marks, name + ".open").exists():
        if time.monotonic() > end:
            return "the gate never opened"
        time.sleep(0.02)
    return name + " ran"

def submitted(ex, name):
    future = ex.submit(gated, marks, name)
    while future.task_id is None and not future.done():
        time.sleep(0.01)
    return future

def outcome(future):
    error = future.exception(timeout=120)
    return ["value", future.result()] if error is None else ["error", type(error).__name__, str(error)]
"""


class GatedTasks:
    def __init__(self, directory):
        self.marks = directory / "marks"
        self.marks.mkdir()

    def submit(self, service, endpoint, client):
        """Starts a client: `client` is Python that submits tasks, with the functions above and those of the prelude, and then
        reports."""
        script = service.sdk("4.19.0").start(FUNCTIONS + client, endpoint.id, self.marks)
        script.wait_for_report()
        return script

    def begun(self, name):
        """The process ids of the workers in which this task has begun."""
        path = self.marks / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_until_begun(self, *names):
        """The process id of the worker of the last one."""
        for name in names:
            pids = until(lambda: self.begun(name), f"the task {name} runs")
        return int(pids[0])

    def open(self, *names):
        for name in names:
            (self.marks / f"{name}.open").touch()

    def assert_begun_once(self, *names):
        assert {name: len(self.begun(name)) for name in names} == {name: 1 for name in names}
