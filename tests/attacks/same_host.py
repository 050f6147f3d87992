"""Attacks by other users of an endpoint's host or of its file system."""

from table import played_elsewhere

FENCE = "crates/endpoint/tests/processes/fence.rs"

played_elsewhere(
    "somebody on the endpoint's host",
    "a program with the endpoint's title on its command line, or another endpoint with its number, ends by its `stop`",
    f"{FENCE}::stop_signals_no_other_process",
)
played_elsewhere(
    "somebody on the endpoint's host",
    "a program that names a node's file on its command line ends as a leftover of the endpoint",
    "crates/endpoint/tests/processes/commands.rs::leftover_nodes_are_ended",
)
played_elsewhere(
    "a second process of the endpoint, on another host",
    "takes journal and results from one that still runs, by starting",
    f"{FENCE}::a_process_that_is_refused_changes_no_file",
)
played_elsewhere(
    "a second process of the endpoint, on another host",
    "has results reported as lost that a process which stood still has",
    "tests/faults/test_second_instance.py::test_results_of_a_process_that_stood_still_arrive_once",
)
