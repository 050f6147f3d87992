"""A machine for one page of the guide: a network of its own with nothing but a loopback, and copies of /etc, /usr/local
and /var/lib that are written instead of the real ones. Run by `unshare --user --map-root-user --net --mount`, which
makes us root of it all; stays until it is killed.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS = 0x8914
UP_AND_RUNNING = 0x41


def main():
    names, scratch = sys.argv[1], sys.argv[2]
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))
    os.makedirs(scratch)
    mount("-t", "tmpfs", "tmpfs", scratch)
    for number, directory in enumerate(["/etc", "/usr/local", "/var/lib"]):
        upper, work = f"{scratch}/{number}-upper", f"{scratch}/{number}-work"
        os.mkdir(upper)
        os.mkdir(work)
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={directory},upperdir={upper},workdir={work},userxattr", directory)
    with open("/etc/hosts", "a") as hosts:
        hosts.write(f"127.0.0.1 localhost {names}\n")
    print("the machine is there", flush=True)
    signal.pause()


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


main()
