"""GC_TASK_TIMEOUT: a limit that also interrupts a call that sleeps. In a thread it takes effect with the next byte code."""

import signal
import threading

from .errors import AppTimeout


def limited(seconds, function, args, kwargs):
    if seconds <= 0:
        return function(*args, **kwargs)
    if threading.current_thread() is not threading.main_thread():
        return limited_thread(seconds, function, args, kwargs)

    def ring(number, frame):
        raise AppTimeout()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def limited_thread(seconds, function, args, kwargs):
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = ctypes.c_ulong(threading.get_ident())
    lock, over = threading.Lock(), []

    def ring():
        with lock:
            if not over:
                raise_in(thread, ctypes.py_object(AppTimeout))

    timer = threading.Timer(seconds, ring)
    timer.daemon = True
    timer.start()
    try:
        return function(*args, **kwargs)
    finally:
        with lock:
            over.append(True)
        timer.cancel()
