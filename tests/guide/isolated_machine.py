"""Simulates the machine of one page of the guide, and stays until it is killed.

Its network has only a loopback, with a second address for the machine's host names, so that connections to those don't
seem to come from the machine itself. Writes to /etc, /usr/local and /var/lib go to copies. It needs no privileges: it is run by
`unshare --user --map-root-user --net --mount`, which makes it root of its own namespaces.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
OUTSIDE = "192.0.2.10"
UP_AND_RUNNING = 0x41


def main():
    names, scratch = sys.argv[1], sys.argv[2]
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", UP_AND_RUNNING))
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(OUTSIDE))
        fcntl.ioctl(any_socket, SIOCSIFADDR, address)
    os.makedirs(scratch)
    mount("-t", "tmpfs", "tmpfs", scratch)
    for number, directory in enumerate(["/etc", "/usr/local", "/var/lib"]):
        original = f"{scratch}/{number}"
        os.mkdir(original)
        mount("--rbind", directory, original)
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", directory)
        fill(original, directory, 3)
    with open(f"{scratch}/0/hosts") as hosts:
        known = hosts.read()
    os.remove("/etc/hosts")
    with open("/etc/hosts", "w") as hosts:
        hosts.write(f"{known}\n127.0.0.1 localhost\n{OUTSIDE} {names}\n")
    print("the machine is there", flush=True)
    signal.pause()


def fill(original, directory, depth):
    """Directories that can be written, as deep as anybody installs anything, and links to what is in them."""
    try:
        entries = list(os.scandir(original))
    except PermissionError:
        return
    for entry in entries:
        path = os.path.join(directory, entry.name)
        if depth and entry.is_dir(follow_symlinks=False):
            os.mkdir(path)
            fill(entry.path, path, depth - 1)
        elif entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
        else:
            os.symlink(entry.path, path)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


main()
