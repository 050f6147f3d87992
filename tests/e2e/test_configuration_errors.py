"""Errors for wrong configurations: the first lines are the same as those of upstream's 3.8.0."""

import json
import subprocess

import environments
from testbed import binary

GOOD = "engine: {type: GlobusComputeEngine}\n"

# What both refuse, in the same words.
WRONG = {
    "no engine": "display_name: x\n",
    "an unknown key": GOOD + "foo: 1\n",
    "two unknown keys": GOOD + "foo: 1\nbar: 2\n",
    "a key of a manager's": GOOD + "user_config_template_path: /x\n",
    "an engine that is no mapping": "engine: 3\n",
    "an unknown engine": "engine: {type: NopeEngine}\n",
    "an unknown provider": "engine: {provider: {type: NopeProvider}}\n",
    "an unknown launcher": "engine: {provider: {type: LocalProvider, launcher: {type: NopeLauncher}}}\n",
    "an unknown option of the engine": "engine: {type: GlobusComputeEngine, nope: 1}\n",
    "an unknown option of the provider": "engine: {provider: {type: LocalProvider, nope: 1}}\n",
    "functions that are no ids": GOOD + "allowed_functions: [x]\n",
    "functions that are no list": GOOD + "allowed_functions: 5\n",
    "admins that are no ids": GOOD + "admins: [1]\n",
    "a policy that is no id": GOOD + "authentication_policy: x\n",
    "a subscription that is no id": GOOD + "subscription_id: x\n",
    "a port that is no number": GOOD + "amqp_port: z\n",
    "a period that is no number": GOOD + "heartbeat_period: abc\n",
    "a threshold that is no number": GOOD + "heartbeat_threshold: abc\n",
    "idle heartbeats that are no number": GOOD + "idle_heartbeats_soft: a\nidle_heartbeats_hard: b\n",
    "a switch that is none": GOOD + "detach_endpoint: maybe\n",
    "several switches that are none": GOOD + "debug: 7\nlocal_compute_services: 8\n",
    "a script that is a list": GOOD + "endpoint_setup: [a]\n",
    "a container of no kind": "engine: {type: GlobusComputeEngine, container_type: lxc}\n",
    "MPI in the wrong engine": "engine: {type: GlobusComputeEngine, enable_mpi_mode: true}\n",
    "serializers of one kind": "engine: {allowed_serializers: [globus_compute_sdk.serialize.DillCodeSource]}\n",
    "one port": "engine: {worker_port_range: [1]}\n",
    "a port": "engine: {interchange_port_range: 5}\n",
    "an interface without a name": "engine: {address: {type: address_by_interface}}\n",
    "an image too few": "engine: {provider: {type: KubernetesProvider}}\n",
    "ports that are no numbers": "engine: {worker_port_range: [a, b]}\n",
    "an address that is a list": "engine: {address: [x]}\n",
    "an unknown address": "engine: {address: {type: address_by_magic}}\n",
    "a name that is a mapping": GOOD + "display_name: {a: 1}\n",
    "a container where the provider has its own": "engine: {container_uri: x, container_type: docker, provider: {type: KubernetesProvider, image: x}}\n",
}

MANAGER = "multi_user: true\n"

# What both refuse of a manager's.
WRONG_MANAGER = {
    "a manager with an engine": MANAGER + "engine: {type: ThreadPoolEngine}\n",
    "a manager that detaches": MANAGER + "detach_endpoint: true\n",
    "a manager with a user endpoint's key": MANAGER + "idle_heartbeats_soft: 3\nendpoint_setup: x\n",
    "a template that is no path": MANAGER + "user_config_template_path: [x]\n",
    "an audit log that is no path": MANAGER + "audit_log_path: 3\n",
    "PAM that is a switch": MANAGER + "pam: true\n",
    "an unknown key of PAM's": MANAGER + "pam: {foo: 1}\n",
    "a switch of PAM's that is none": MANAGER + "pam: {enable: maybe}\n",
    "a service of PAM's that is no name": MANAGER + "pam: {service_name: [1]}\n",
    "a grace period that is no number": MANAGER + "mu_child_ep_grace_period_s: x\n",
    "a manager's switches that are none": MANAGER + "public: maybe\nforce_mu_allow_same_user: x\n",
    "a manager's port that is no number": MANAGER + "amqp_port: z\nheartbeat_period: q\n",
    "a manager's admins that are no list": MANAGER + "admins: x\n",
}
WRONG |= WRONG_MANAGER

# What upstream takes, and so do we.
TAKEN = [
    GOOD,
    GOOD + "display_name: None\n",
    GOOD + "display_name: ''\nallowed_functions: []\n",
    GOOD + "heartbeat_period: 7.9\ndetach_endpoint: 'off'\nlog_dir: /tmp\nstdout: a\nstderr: b\n",
    GOOD + "amqp_port: '443'\nmulti_user: false\n",
    "engine: {provider: {type: LocalProvider}}\n",
    "engine: {type: ThreadPoolEngine, max_workers: 2}\n",
    "engine: {type: ProcessPoolEngine, max_workers: 2}\n",
    "engine: {max_workers_per_node: 2, available_accelerators: 2, worker_port_range: [50000, 51000]}\n",
    "engine: {allowed_serializers: ['globus_compute_sdk.*Code', 'globus_compute_sdk.*Data']}\n",
]

ASK = """
import json, sys
from globus_compute_endpoint.endpoint.config.utils import load_config_yaml

def said(text):
    try:
        load_config_yaml(text)
    except Exception as error:
        return getattr(error, "message", None) or str(error)

json.dump([said(text) for text in json.load(sys.stdin)], sys.stdout)
"""


def test_what_is_wrong_is_said_as_upstream_says_it(tmp_path, testbed):
    asked = subprocess.run(
        [str(environments.python("sdk-3.8.0")), "-c", ASK],
        input=json.dumps([*WRONG.values(), *TAKEN]),
        cwd=tmp_path,
        env=testbed.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert asked.returncode == 0, asked.stderr
    said = json.loads(asked.stdout)
    differences = []
    for (what, text), theirs in zip(WRONG.items(), said):
        if theirs is None:
            differences.append(f"{what}: upstream takes it")
            continue
        status, ours = checked(tmp_path, text)
        # Theirs is a whole line at least; ours goes on with the place.
        if status != 1 or not ours.startswith("Error: " + theirs.rstrip("\n") + "\n"):
            differences.append(f"{what}:\n  upstream says\n{theirs}\n  ours says\n{ours}")
    for text, theirs in zip(TAKEN, said[len(WRONG) :]):
        status, ours = checked(tmp_path, text)
        if theirs is not None or status != 0:
            differences.append(f"{text}\n  upstream says {theirs}\n  ours says {ours}")
    assert not differences, "\n\n".join(differences)


def checked(directory, text):
    path = directory / "config.yaml"
    path.write_text(text)
    done = subprocess.run([str(binary("globus-compute-endpoint")), "check", str(path)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr
