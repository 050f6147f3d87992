"""Attacks on a manager that root runs for many people, and by its users on each other. Tests of the manager play them."""

from table import played_elsewhere

OWN = "tests/e2e/test_own_manager_attacks.py"
PROCESSES = "crates/endpoint/tests/processes"
LAUNCH = "crates/manager/tests/launch"
MANAGE = "crates/endpoint/src/manage"
CORE = "crates/manager/src/core/tests"

for who, tries, test in (
    ("a task below a manager", "signals, reads or changes the manager, root's files or another user's user endpoint",
     f"{OWN}::test_a_task_reaches_neither_the_manager_nor_another_user"),
    ("a task below a manager", "kills its own user endpoint, and takes the manager or another user's tasks with it",
     f"{OWN}::test_a_task_that_kills_its_own_user_endpoint_harms_nobody_else"),
    ("who has taken over the service", "sends a manager 10,000 malformed, old, oversized and cut-off commands",
     f"{PROCESSES}/hostile_commands.rs::ten_thousand_hostile_commands_create_nothing"),
    ("a submitter", "names another endpoint's directory", "crates/manager/src/command_tests.rs::any_name"),
    ("a submitter", "writes a second line into the manager's log", "crates/manager/src/command_tests.rs::a_name_in_the_log_is_one_line"),
    ("a submitter", "is mapped to root", "crates/manager/src/mapping/name.rs::an_allowed_name_is_plain"),
    ("a submitter", "makes an expression of the mapping run for ever", "crates/manager/src/mapping/pattern.rs::matching_is_bounded"),
    ("a submitter", "passes an option that becomes structure of the configuration",
     "crates/manager/tests/template.rs::an_option_arrives_as_the_value_that_was_sent"),
    ("a submitter", "passes an option that makes a template run for ever or fill the memory",
     "crates/manager/tests/template.rs::runaway_templates_end_with_an_error"),
    ("a submitter", "passes an option that makes a schema run for ever", "crates/manager/tests/template.rs::runaway_schemas_end_with_an_error"),
    ("a submitter", "starts user endpoints until nobody else can", f"{CORE}/limits.rs::one_user_leaves_room_for_others"),
    ("a submitter", "fills the manager's memory with large commands", f"{CORE}/limits.rs::commands_that_wait_are_bounded_in_bytes"),
    ("a local user", "stops its launchers, so that nobody else's start begins", f"{CORE}/places.rs::the_last_quarter_of_the_places_is_kept_for_others"),
    ("a local user", "keeps a hot restart from happening by a start that does not end",
     f"{CORE}/places.rs::a_launcher_that_does_not_end_is_killed_and_leaves_its_place"),
    ("a local user", "ends its user endpoint by a signal that has no name", f"{MANAGE}/processes/tests.rs::a_child_that_a_real_time_signal_killed_has_ended"),
    ("a local user", "has root signal a process whose number it chose", "crates/manager/src/launch/reports.rs::numbers_that_may_not_be_signalled"),
    ("a local user", "writes records of others into the audit log", "crates/manager/src/audit.rs::a_user_endpoint_writes_one_line_in_its_own_name"),
    ("a local user", "fills the disk with the audit log", f"{MANAGE}/audit_budget.rs::several_pipes_share"),
    ("a local user", "makes the memory of credentials grow", f"{MANAGE}/credentials.rs::the_reader_sees_the_newest_content_and_can_write_none"),
    ("a local user", "puts a link, a FIFO or a file in the place of its directory or log", f"{LAUNCH}/failures.rs::homes"),
    ("a local user", "has root's files shown by a link in place of a template",
     "crates/manager/src/site_files.rs::links_of_others_are_not_followed_as_root"),
    ("a local user", "gets the keys of whoever started the manager", f"{LAUNCH}/keys.rs::of_the_manager_stay_there_without_pam"),
    ("a local user", "starts the launcher itself", f"{LAUNCH}/plain.rs::only_a_manager_starts_it"),
    ("somebody who may write a directory on the way", "changes who is mapped to whom",
     "crates/manager/src/mapping/watch/tests.rs::a_file_or_program_that_others_can_change_is_refused"),
    ("a file server that does not answer", "uses up the manager's threads by identity mappings",
     f"{MANAGE}/mapping.rs::evaluations_that_hang_leave_threads_for_others"),
):
    played_elsewhere(who, tries, test)
