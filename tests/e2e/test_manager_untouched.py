"""A manager as `configure --multi-user` makes it runs tasks as soon as its identity mapping maps somebody."""

import json

import local_users
import pytest
from testbed import binary

pytestmark = pytest.mark.skipif(local_users.skip_reason() is not None, reason=str(local_users.skip_reason()))


class Untouched(local_users.OwnManager):
    """Its template, schema and configuration are those of `configure`."""

    def configure(self):
        done = self.run("configure", "--multi-user", self.name)
        assert done.returncode == 0, done.stdout + done.stderr
        # A user endpoint that is started by hand finds its program on the usual PATH; here it lies elsewhere.
        path = [local_users.python().parent, "/usr/bin", "/bin", binary("globus-compute-endpoint").parent]
        (self.home / "user_environment.yaml").write_text(json.dumps({"PATH": ":".join(map(str, path))}))
        self.write_mapping(self.mapping)
        (self.home / "mapping.json").rename(self.home / "example_identity_mapping_config.json")


def test_the_files_of_configure_run_a_task(testbed):
    """With both options of the template."""
    with local_users.LocalUsers() as users:
        service = testbed.service()
        alicia = service.add_client("alicia")
        manager = Untouched(testbed, service, {alicia[0]: "alicia"})
        testbed.endpoints.append(manager)
        manager.configure()
        manager.start()
        reports = service.sdk("4.19.0", alicia).run(
            """
            import sys

            def who():
                import os, pathlib

                return [os.getuid(), os.environ.get("FROM_INIT"), pathlib.Path("~/set-up").expanduser().exists()]

            options = {"endpoint_setup": "touch ~/set-up", "worker_init": "export FROM_INIT='it is so'"}
            for config in ({}, options):
                with executor(sys.argv[1], user_endpoint_config=config) as ex:
                    report(ex.submit(who).result(timeout=100))
            """,
            manager.id,
            timeout=220,
        )
        uid = users["alicia"].pw_uid
        assert reports == [[uid, None, False], [uid, "it is so", True]]
        manager.stop()
