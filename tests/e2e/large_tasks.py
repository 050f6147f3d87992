"""Scripts of a client: tasks with payloads that are too large for the database's own rows, and their results."""

# More than what is kept in the database's own rows.
LARGE = 300_000

WAITING = """
import sys

def echo(number, padding):
    return number, len(padding)

client = Client()
batch = client.create_batch()
function = client.register_function(echo)
for number in range(20):
    batch.add(function, args=(number, "x" * int(sys.argv[2])))
report(client.batch_run(sys.argv[1], batch)["tasks"][function])
"""

COLLECT = """
import sys, time

client = Client()
for task in sys.argv[1:]:
    while client.get_task(task)["pending"]:
        time.sleep(0.1)
    report(client.get_result(task))
"""
