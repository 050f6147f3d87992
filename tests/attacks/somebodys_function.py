"""Attacks of a function that a user has sent, on the worker that runs it: each may cost its own task, and nothing else."""

from table import played_elsewhere

WHO = "somebody's function"
HERE = "crates/engine/tests/process/misbehaving.rs::"


def row(tries, test):
    played_elsewhere(WHO, tries, HERE + test)


row("forks and returns in the child, which would answer and read tasks in its parent's place",
    "a_forked_child_that_returns_is_ended_and_its_parent_answers")
row("does the same in a thread of a pool", "what_a_function_forks_in_a_thread_does_not_answer")
row("leaves a daemon that keeps what its worker had open",
    "a_process_pool_and_a_daemon_of_a_function_work_without_the_workers_sockets")
row("writes results for others' tasks into its worker's connection",
    "an_answer_that_does_not_belong_is_the_end_of_the_worker")
