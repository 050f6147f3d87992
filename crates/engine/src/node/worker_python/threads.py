"""Runs workers as threads of one process. Each has sockets of its own.

They share directory, environment and modules, as the users of thread pools expect. A function that calls `sys.exit`
ends its own task only; the end of the process ends all of them.
"""

import os
import threading

from .worker import Worker


class Thread(Worker):
    ends, has_alarm = (), False

    def enter(self, task_id):
        os.environ["GC_TASK_UUID"] = task_id
        try:
            here = os.getcwd()
        except OSError:
            here = None  # a function has removed it
        if here != self.working_dir:
            os.makedirs(self.working_dir, exist_ok=True)
            os.chdir(self.working_dir)


def run(pairs, config):
    prefix = config["thread_name_prefix"] or "ThreadPoolEngine"
    threads = [
        threading.Thread(target=Thread(*pair, config).run, name="%s_%d" % (prefix, rank))
        for rank, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
