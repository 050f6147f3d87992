"""Managers and what we did not write: SDK 3.8.0, upstream's user endpoints below our manager, upstream's managers that root
runs, and clients of several Python versions."""

import sys
from pathlib import Path

import environments
import local_users
import pytest
from processes import alive, until

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
from versions import interpreters, without  # noqa: E402

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))

RELEASES = ("3.8.0", "4.19.0")


@pytest.fixture(scope="module")
def release():
    return "4.19.0"


def started(testbed, manager):
    testbed.endpoints.append(manager)
    manager.configure()
    manager.start()
    return manager


def test_the_sdk_of_3_8_0(shared_testbed, service, users, people):
    """Each person's tasks run as their own user, a configuration has a process of its own, and who is not mapped is told."""
    mapping = local_users.ids(people, "alicia", "roberto")
    manager = started(shared_testbed, local_users.OwnManager(shared_testbed, service, mapping, name="older-sdk"))
    alicia, roberto, nobody = (
        local_users.Person(service.sdk("3.8.0", people[name]), manager) for name in ("alicia", "roberto", "nobody")
    )
    first, second, again = alicia.look(), alicia.look(workers=2), alicia.look()
    assert [seen["uid"] for seen in (first, second, roberto.look())] == [users[n].pw_uid for n in ("alicia", "alicia", "roberto")]
    assert first["node"] == again["node"] != second["node"]
    assert "SEMANTICALLY_INVALID" in nobody.look()
    expected = "Request payload failed validation: Identity failed to map to a local user name.  (LookupError) \n"
    assert f"{expected}  Globus effective identity: {people['nobody'][0]}\n" in nobody.look()


# Byte code is what 3.8.0's SDK sends unless it is told otherwise.
BY_BYTE_CODE = """
    import sys
    from globus_compute_sdk.serialize import ComputeSerializer, CombinedCode, DillCode, JSONData

    def double(x):
        return x + x

    for code in (DillCode, CombinedCode):
        serializer = ComputeSerializer(strategy_code=code(), strategy_data=JSONData())
        with executor(sys.argv[1], serializer=serializer) as ex:
            future = ex.submit(double, 21)
            report(str(future.exception(timeout=60) or future.result()))
"""
DISABLED = """\
 Deserialization failed:
  Code serializer DillCode disabled by current configuration.
  The current configuration requires the *function* to be serialized with one of the allowed Code classes:

      Allowed serializers: CombinedCode, JSONData
"""
LIST = ["globus_compute_sdk.serialize.CombinedCode", "globus_compute_sdk.serialize.JSONData"]


def test_allowed_serializers_are_told_in_the_words_of_the_users_page(shared_testbed, service, users, people):
    """By a plain endpoint, and by a user endpoint. The page has no blanks at the ends of lines."""
    template = local_users.TEMPLATE.replace("provider:", f"allowed_serializers: {LIST}\n      provider:")
    mapping = local_users.ids(people, "harper")
    manager = local_users.OwnManager(shared_testbed, service, mapping, name="restricted", template=template)
    started(shared_testbed, manager)
    engine = {"type": "GlobusComputeEngine", "allowed_serializers": LIST, "provider": {"type": "LocalProvider", "init_blocks": 1}}
    plain = shared_testbed.endpoint(service, "restricted-plain", engine=engine)
    running = [
        service.sdk(sdk_release, identity).start(BY_BYTE_CODE, endpoint.id)
        for sdk_release in RELEASES
        for endpoint, identity in ((plain, None), (manager, people["harper"]))
    ]
    for client in running:
        refused, done = client.finish()
        assert done == "42"
        lines = "\n".join(map(str.rstrip, refused.splitlines()))
        assert "\n globus_compute_sdk.errors.error_types.DeserializationError:" + DISABLED in lines, refused


@pytest.mark.long
@pytest.mark.parametrize("theirs", RELEASES)
def test_upstreams_user_endpoint_below_our_manager(testbed, theirs):
    """Its PATH leads to a virtual environment with upstream's program. It ends with the manager, also with one that is killed."""
    service = testbed.service()
    alicia = service.add_client("alicia")
    with local_users.LocalUsers() as users:
        uid = users["alicia"].pw_uid
        path = f"{local_users.programs(f'sdk-{theirs}')}:{local_users.python(f'sdk-{theirs}').parent}:/usr/bin:/bin"
        manager = local_users.OwnManager(testbed, service, {alicia[0]: "alicia"}, environment={"PATH": path})
        started(testbed, manager)
        person = local_users.Person(service.sdk(theirs, alicia), manager)
        seen = person.look()
        assert seen["uid"] == uid and seen["environment"]["PATH"].split(":")[0] == path.split(":")[0]
        assert person.look()["node"] == seen["node"]
        (pid,) = manager.children()
        assert Path(f"/proc/{pid}/exe").resolve().name.startswith("python"), "not our program"
        manager.process.stop()
        assert not alive(pid)
        assert f"({pid}) [(alicia, uep." in manager.log_text()
        manager.start()
        assert person.look()["uid"] == uid
        (pid,) = manager.children()
        manager.kill()
        until(lambda: not alive(pid), "upstream's user endpoint notices that its manager is gone", 20)


@pytest.mark.long
@pytest.mark.parametrize("theirs", RELEASES)
def test_upstreams_manager_that_root_runs(testbed, theirs):
    """With a mapping of two people: our service is to it what the hosted one is."""
    service = testbed.service()
    people = {name: service.add_client(name) for name in ("alicia", "roberto", "nobody")}
    with local_users.LocalUsers() as users:
        manager = local_users.UpstreamsManager(testbed, service, local_users.ids(people, "alicia", "roberto"), theirs)
        started(testbed, manager)
        for name, sdk in (("alicia", "4.19.0"), ("roberto", "3.8.0")):
            seen = local_users.Person(service.sdk(sdk, people[name]), manager).look()
            assert isinstance(seen, dict) and seen["uid"] == users[name].pw_uid, seen
        refused = local_users.Person(service.sdk("4.19.0", people["nobody"]), manager).look()
        assert "Identity failed to map to a local user name.  (LookupError)" in refused
        manager.stop()


# As the users' page has it, but for what makes the environments.
SEVERAL_PYTHONS = """\
endpoint_setup: {{ endpoint_setup|default() }}
engine:
  type: GlobusComputeEngine
  provider:
     type: LocalProvider
  {% if '3.13' in user_runtime.python_version %}
     worker_init: conda activate py313
  {% elif '3.12' in user_runtime.python_version %}
     worker_init: conda activate py312
  {% elif '3.11' in user_runtime.python_version %}
     worker_init: conda activate py311
  {% else %}
     worker_init: conda activate py310
  {% endif %}
"""


@pytest.mark.long
# The environments of the clients are made in the first run on a machine.
@pytest.mark.timeout(900)
def test_clients_of_several_python_versions_have_workers_of_their_own(testbed):
    versions = [version for version in ("3.10", "3.11", "3.12", "3.13") if version not in without()]
    service = testbed.service()
    alicia = service.add_client("alicia")
    template = SEVERAL_PYTHONS.replace("conda activate py", f". {local_users.PLACE}/py")
    clients = {}
    for version in versions:
        found = interpreters()[version]
        clients[version] = environments.make("clients/sdk-4.19.0", found)
        made = local_users.virtual_environment(version, found)
        template = template.replace(f"{made}\n", f"{made}/bin/activate\n")
    with local_users.LocalUsers():
        manager = local_users.OwnManager(testbed, service, {alicia[0]: "alicia"}, template=template)
        started(testbed, manager)
        people = []
        for version in versions:
            sdk = service.sdk("4.19.0", alicia)
            sdk.python = clients[version]
            people.append(local_users.Person(sdk, manager))
            people[-1].ask()
        seen = [person.answer() for person in people]
        assert [".".join(map(str, one["python"])) for one in seen] == versions
        assert len(manager.children()) == len(versions)
