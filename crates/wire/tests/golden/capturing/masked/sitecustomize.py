"""Keeps the name and the make of the capturing machine out of the golden files."""

import platform
import socket

SYSTEM = "Linux-6.1.0-amd64-x86_64-with-glibc2.36"

platform.node = lambda: "host.example.edu"
platform.platform = lambda *arguments, **named: SYSTEM
platform.release = lambda: "6.1.0-amd64"
socket.getfqdn = lambda name="": "host.example.edu"
