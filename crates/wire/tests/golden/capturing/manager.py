"""A real manager endpoint: its registration, what it hands to a user endpoint, what it says when it can't."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from pika import BasicProperties

from .broker import Broker
from .endpoint import has_plain_endpoints, program
from .known import CLIENT, ENDPOINT, FUNCTION, IDENTITY, OTHER_IDENTITY, USER_ENDPOINT
from .recorder import Recorder
from .sdk import TOKEN, VERSIONS

PACKAGE = "globus-compute-endpoint"

# Stands in for the user endpoint, and keeps what it was given.
STAND_IN = """\
#!/bin/sh
cat > "$HOME/start-document.json.new"
mv "$HOME/start-document.json.new" "$HOME/start-document.json"
"""

TEMPLATE = """\
debug: true
engine:
  type: ThreadPoolEngine
endpoint_setup: {{ endpoint_setup|default() }}
"""


def capture(shelf, options):
    recorder = Recorder()
    os.environ.update(GLOBUS_COMPUTE_CLIENT_ID=CLIENT, GLOBUS_COMPUTE_CLIENT_SECRET="a secret")
    recorder.will("GET", "/v2/version", VERSIONS)
    recorder.will("POST", "/v2/oauth2/token", TOKEN)
    broker = Broker()
    recorder.will("POST", "/v3/endpoints", broker.registration(ENDPOINT))
    recorder.will("PUT", f"/v3/endpoints/{ENDPOINT}", broker.registration(ENDPOINT))

    stand_in = Path(tempfile.mkdtemp(prefix="capture-"))
    stand_in.chmod(0o755)
    (stand_in / "globus-compute-endpoint").write_text(STAND_IN)
    (stand_in / "globus-compute-endpoint").chmod(0o755)
    directory = Path(os.environ["GLOBUS_COMPUTE_USER_DIR"]) / "manager"
    # 3.x puts the user endpoint's directory in here, too.
    directory.parent.chmod(0o777)
    options_of_era = ["--multi-user"] if has_plain_endpoints() else ["--multi-user", "true"]
    contact = [] if has_plain_endpoints() else ["--contact-email", "admin@example.edu"]
    subprocess.run([program(), "configure", *options_of_era, *contact, "manager"], check=True, capture_output=True)
    (directory / "user_config_template.yaml.j2").write_text(TEMPLATE)
    (directory / "user_environment.yaml").write_text(f"PATH: {stand_in}:/usr/bin:/bin\n")
    mapping = {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [{"source": "{username}", "match": "(.*)@example.edu", "output": options.user}],
    }
    for found in directory.glob("*identity_mapping*.json"):
        found.write_text(json.dumps([mapping]))

    home = Path(pwd.getpwnam(options.user).pw_dir)
    received = home / "start-document.json"
    for allowed in (False, True):
        name = "-allowed-functions" if allowed else ""
        received.unlink(missing_ok=True)
        if allowed:
            with open(directory / "config.yaml", "a") as config:
                config.write(f"\nallowed_functions:\n  - {FUNCTION}\n")
        broker.published.clear()
        broker.consumers.clear()
        with recorder.asking() as heard:
            # At its end a manager sends SIGTERM to its whole process group.
            manager = subprocess.Popen(
                [program(), "start", "manager"], stdin=subprocess.DEVNULL, start_new_session=True
            )
            try:
                order(broker, "alice@example.edu", {"endpoint_setup": 'echo "é"'})
                deadline = time.monotonic() + 60
                while not received.exists() and time.monotonic() < deadline:
                    time.sleep(0.1)
                heartbeat = broker.heard(lambda exchange, key, *rest: key == f"{ENDPOINT}.heartbeats")
                if not allowed:
                    order(broker, "mallory@elsewhere.org", {})
                    notice = broker.heard(lambda exchange, key, *rest: key == f"{USER_ENDPOINT}.heartbeats")
                    shelf.put(PACKAGE, "heartbeat-failed-start.bin", notice[3])
            finally:
                manager.send_signal(signal.SIGTERM)
                manager.wait(60)
        registered = [asked for asked in heard if asked.path.startswith("/v3/endpoints")]
        shelf.put(PACKAGE, f"register-manager{name}.request.json", registered[-1].body)
        shelf.put(PACKAGE, f"start-document{name}.json", received.read_bytes())
        shelf.put(PACKAGE, "heartbeat-manager.bin", heartbeat[3])
        final = broker.heard(
            lambda exchange, key, properties, body: key == f"{ENDPOINT}.heartbeats" and b'period":0' in body
        )
        shelf.put(PACKAGE, "heartbeat-final.bin", final[3])
        shelf.put(PACKAGE, "start-endpoint.json", command("alice@example.edu", {"endpoint_setup": 'echo "é"'}, broker))
    received.unlink()
    shutil.rmtree(stand_in)
    recorder.close()


def order(broker, username, user_opts):
    """Has the manager start a user endpoint."""
    body = command(username, user_opts, broker)
    properties = BasicProperties(content_type="application/json", timestamp=int(time.time()))
    broker.hand(f"{ENDPOINT}.commands", properties, body)


def command(username, user_opts, broker):
    credentials = broker.registration(USER_ENDPOINT)
    del credentials["command_queue_info"]
    identity = {
        "sub": IDENTITY,
        "organization": "Example University",
        "name": "Alice Ö",
        "username": username,
        "identity_provider": "41143743-f3c8-4d60-bbdb-eeecaba85bd9",
        "identity_provider_display_name": "Example University",
        "email": username,
        "last_authentication": 1775771457,
        "identity_type": "login",
        "id": IDENTITY,
        "status": "used",
    }
    runtime = {
        "globus_compute_sdk_version": "4.19.0",
        "globus_sdk_version": "4.9.1",
        "python_version": "3.11.7 (main) [GCC 12.2.0]",
        "python": {
            "version": "3.11.7",
            "version_description": "3.11.7 (main) [GCC 12.2.0]",
            "version_tuple": [3, 11, 7],
            "version_info": [3, 11, 7, "final", 0],
            "implementation": "CPython",
            "compiler": "GCC 12.2.0",
        },
        "platform": {
            "architecture": ["64bit", "ELF"],
            "machine": "x86_64",
            "node": "host.example.edu",
            "platform": "Linux-6.1.0-amd64-x86_64-with-glibc2.36",
            "processor": "",
            "release": "6.1.0-amd64",
        },
    }
    linked = {"sub": OTHER_IDENTITY, "username": "other@example.org", "status": "unused", "last_authentication": None}
    return json.dumps(
        {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"uep.{ENDPOINT}.{USER_ENDPOINT}",
                "user_opts": user_opts,
                "user_runtime": runtime,
                "amqp_creds": credentials,
            },
            "globus_username": username,
            "globus_effective_identity": IDENTITY,
            "globus_identity_set": [identity, linked],
        }
    ).encode()
