"""An endpoint none of whose blocks works: tasks get the reason, and the endpoint leaves with an exit status that says so."""

import json

from processes import until

FAILS = "echo there is no such module >&2; exit 3"


def test_tasks_that_waited_get_the_reason(testbed):
    service = testbed.service()
    endpoint = testbed.endpoint(service)
    endpoint.stop()
    script = service.sdk("4.19.0").start(
        """
        import sys

        with executor(sys.argv[1]) as ex:
            futures = [ex.submit(len, "four") for _ in range(3)]
            while not all(future.task_id for future in futures):
                time.sleep(0.02)
            report("submitted")
            report([str(future.exception(timeout=60)) for future in futures])
        """.replace("import sys", "import sys, time"),
        endpoint.id,
    )
    script.wait_for_report()
    path = endpoint.directory / endpoint.name / "config.yaml"
    config = json.loads(path.read_text())
    config["engine"]["provider"]["worker_init"] = FAILS
    path.write_text(json.dumps(config))
    endpoint.process = testbed.start("bad", endpoint.command("start", endpoint.name), endpoint.environment())
    _, errors = script.finish()
    assert len(errors) == 3 and all("there is no such module" in error for error in errors), errors
    assert endpoint.process.wait() == 78
    assert "there is no such module" in endpoint.process.output(), "its last words"
    until(lambda: not endpoint.online(), "it is offline")
