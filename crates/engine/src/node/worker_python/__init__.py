"""Starts the worker of a Farcall node, which takes one task after another from a socket and answers on another.

It needs Python 3.8 or later and nothing else. It imports little, because a block's first result waits for it. It leaves
`__main__` alone, because the functions of users keep their globals there. No program imports a package of this name by
accident, and its directory is not on the path when functions run.
"""

import gc
import json
import os
import sys

from .worker import Worker


def main():
    del sys.path[0]  # the directory of this package, which functions must not import from
    config = json.loads(os.environ.pop("FARCALL_WORKER_CONFIG"))
    sockets = [int(number) for number in os.environ.pop("FARCALL_WORKER_SOCKETS").split(",")]
    for name in os.environ.pop("FARCALL_WORKER_OWN_VARIABLES", "").split(","):
        os.environ.pop(name, None)
    for socket in sockets:
        os.set_inheritable(socket, False)
    # A process that a function forks must not read or write on the worker's sockets.
    os.register_at_fork(after_in_child=lambda: close(sockets))
    # The modules that are loaded now stay, so garbage collections need not look at them.
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
