"""Attacks by a user's function on the worker that runs it: the function may lose its own task, and nothing else."""

from table import played_elsewhere

WHO = "somebody's function"
HERE = "crates/engine/tests/process/misbehaving.rs::"


def row(tries, test):
    played_elsewhere(WHO, tries, HERE + test)


row("forks and returns in the child, which would answer and read tasks in its parent's place",
    "a_forked_child_that_returns_is_ended_and_its_parent_answers")
row("does the same in a thread of a pool", "a_child_forked_in_a_thread_does_not_answer")
row("leaves a daemon that keeps what its worker had open",
    "a_process_pool_and_a_daemon_of_a_function_work_without_the_workers_sockets")
row("writes results for others' tasks into its worker's connection",
    "a_worker_that_sends_an_unexpected_result_is_killed")
row("raises what is no Exception, what can't be printed, or a hundred megabytes",
    "every_exception_is_reported_and_the_worker_goes_on")
row("replaces what its worker needs of Python, and keeps the process from ending",
    "a_worker_damaged_by_a_function_is_replaced")
row("spoils the process of a thread pool", "a_damaged_process_of_threads_is_replaced")
row("leaves an alarm that would go off in another function", "a_forgotten_alarm_interrupts_no_other_function")
row("closes its worker's connection, and opens files in its place",
    "a_function_that_closes_the_workers_descriptors_gets_an_error")
played_elsewhere(
    WHO,
    "starts what nothing but its parent ties to it, on each of many workers, and waits for the node's end",
    "crates/engine/tests/process/many.rs::users_keep_their_soft_limit_of_open_files_and_256_workers_are_ended_side_by_side",
)
played_elsewhere(
    "a user of a template of user endpoints",
    "leads its logs and scripts out of the endpoint's directory by the engine's label",
    "crates/engine/src/config/check.rs::a_label_can_not_leave_its_directory",
)
