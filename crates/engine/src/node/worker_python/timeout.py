"""GC_TASK_TIMEOUT: a limit that also interrupts a call that sleeps."""

import signal

from .errors import AppTimeout


def limited(seconds, function, args, kwargs):
    if seconds <= 0:
        return function(*args, **kwargs)

    def ring(number, frame):
        raise AppTimeout()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
