"""A FUSE file system that stalls on demand: while a flag file exists, every call waits.

    python stalling_file_system.py SOURCE MOUNT FLAG -- COMMAND...

mounts SOURCE at MOUNT in a mount namespace of its own, and runs COMMAND there. The test can still read SOURCE directly
while the programs that use MOUNT are stalled.
"""

import errno
import functools
import os
import signal
import subprocess
import sys
import threading
import time

import mfusepy as fuse


def stalls(operation):
    """An operation on the file of SOURCE that lies where `path` says, once no flag is there."""

    @functools.wraps(operation)
    def wrapped(self, path, *arguments, **named):
        while os.path.exists(self.flag):
            time.sleep(0.02)
        try:
            return operation(self, self.source + path, *arguments, **named)
        except OSError as error:
            raise fuse.FuseOSError(error.errno or errno.EIO) from error

    return wrapped


class Stalling(fuse.Operations):
    use_ns = True

    def __init__(self, source, flag):
        self.source = source
        self.flag = flag

    @stalls
    def access(self, path, amode):
        if not os.access(path, amode):
            raise fuse.FuseOSError(errno.EACCES)

    @stalls
    def getattr(self, path, fh=None):
        found = os.lstat(path)
        names = ("mode", "nlink", "uid", "gid", "size", "ino")
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")}
        return times | {f"st_{name}": getattr(found, f"st_{name}") for name in names}

    @stalls
    def readdir(self, path, fh):
        return [".", "..", *os.listdir(path)]

    @stalls
    def create(self, path, mode, fi=None):
        return os.open(path, os.O_RDWR | os.O_CREAT, mode)

    @stalls
    def open(self, path, flags):
        # The kernel sees to the end of the file: positions come with each write.
        return os.open(path, flags & ~(os.O_APPEND | os.O_CREAT | os.O_EXCL))

    @stalls
    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    @stalls
    def write(self, path, data, offset, fh):
        return os.pwrite(fh, data, offset)

    @stalls
    def truncate(self, path, length, fh=None):
        os.truncate(path, length)

    @stalls
    def flush(self, path, fh):
        pass

    @stalls
    def fsync(self, path, datasync, fh):
        os.fsync(fh)

    @stalls
    def release(self, path, fh):
        os.close(fh)

    @stalls
    def chmod(self, path, mode):
        os.chmod(path, mode)

    @stalls
    def chown(self, path, uid, gid):
        os.chown(path, uid, gid)

    @stalls
    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    @stalls
    def rmdir(self, path):
        os.rmdir(path)

    @stalls
    def unlink(self, path):
        os.unlink(path)

    @stalls
    def rename(self, old, new, flags=0):
        os.rename(old, self.source + new)

    @stalls
    def link(self, target, source):
        os.link(self.source + source, target)

    @stalls
    def symlink(self, target, source):
        os.symlink(source, target)

    @stalls
    def readlink(self, path):
        return os.readlink(path)

    @stalls
    def utimens(self, path, times=None):
        os.utime(path, ns=times)

    @stalls
    def statfs(self, path):
        found = os.statvfs(path)
        names = ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail", "flag", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}


def main():
    source, mount, flag, _, *command = sys.argv[1:]
    running = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Before the file system takes those that nobody has taken.
        signal.signal(number, lambda number, _: [command.send_signal(number) for command in running])
    serving = threading.Thread(
        target=lambda: fuse.FUSE(Stalling(source, flag), mount, foreground=True, attr_timeout=0, entry_timeout=0),
        daemon=True,
    )
    serving.start()
    while not os.path.ismount(mount):
        if not serving.is_alive():
            sys.exit("the file system could not be mounted")
        time.sleep(0.02)
    running.append(subprocess.Popen(command))
    status = running[0].wait()
    # The namespace ends with its last process, and the mount with it.
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
