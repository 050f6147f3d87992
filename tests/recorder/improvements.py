"""Where our endpoint answers differently from upstream's on purpose: for each message why, and both answers.

All of it is tested: the answers must differ, and be the ones written here. `CONFORMANCE.md` holds the table for readers.
"""

from typing import NamedTuple

BOTH = ("3.8.0", "4.19.0")


class Improvement(NamedTuple):
    reason: str
    # What upstream's answer says; `None`: it gives none.
    upstream: str
    ours: str
    releases: tuple = BOTH


# Answers that are equal but for the lines of tracebacks that lie in the agent's own files. Upstream's list every
# function on the way; ours name the one that noticed.
FRAMES = "Frames of the agent's own files in a traceback are its own; those of the user's functions are the same. Text beyond ASCII is escaped, as by 3.8.0."

UNANSWERED = "A task that can be named is answered; upstream's endpoint logs the message, and the client waits for ever."
MALFORMED = "The error of a message that is no task is told in one line, without that of the library that read it."
KINDS = "What is no task gets `CouldNotExecuteUserTaskError`, whatever it is, with the size and the beginning of the message."
SPECIFICATION = "A resource specification that is no object is refused before the engine sees it."
FAILED = "Failed to start task: "

IMPROVEMENTS = {
    "ok: an exception": Improvement(
        "An exception that is returned, not raised, is a plain pickle; upstream's needs the package tblib at the client.",
        "00\ngASV", "00\ngASVPQAAAAAAAACMCmRpbGwuX2RpbGyUjApfbG9hZF90eXBl",
    ),
    "exception: in a function within": Improvement(
        "A traceback begins with the function that was submitted; upstream's 4.19.0 leaves it out when another raised.",
        "in deeper", "in fails_below", ("4.19.0",),
    ),
    "result by nobody knows": Improvement(
        "A serializer that nobody knows is refused with one error, not with the chain of those that looked for it.",
        "All strategies failed.", "Invalid strategy-like 'globus_compute_sdk.serialize.Nothing'",
    ),
    "an unpicklable result: a generator": Improvement(
        "A generator or coroutine that is returned is told in one sentence, with what to return in its place.",
        "All strategies failed.", "TypeError: The function returned a generator, which can't leave its process",
    ),
    "a result too big": Improvement(
        "The size of a result is what its value takes, not the text that this is packed as; the error says the limit's key.",
        "MaxResultSizeExceeded(14", "MaxResultSizeExceeded(11000009, 10485760)\nThe result takes 11.0 MB, and",
    ),
    "malformed: two buffers": Improvement(MALFORMED, "decoding with 'base64' codec failed", "binascii.Error: Invalid base64-encoded string"),
    "malformed: nothing": Improvement(MALFORMED, "cannot detect_protocol_version on empty data", "ValueError: empty message"),
    "malformed: another version": Improvement(MALFORMED, "UnrecognizedProtocolVersion", "ValueError: message had unknown protocol version 2"),
    "malformed: no task within": Improvement(MALFORMED, "2 validation errors for Task", "KeyError: 'task_buffer'"),
    "an unknown message type": Improvement(KINDS, "1 validation error for MessageEnvelope", "Non Task-type message received: surprise"),
    "a task_cancel as a task": Improvement(
        "What is no task is told in the words of upstream's 4.19.0 by workers of every release.",
        "wrong type of message in worker", "Non Task-type message received: TaskCancel", ("3.8.0",),
    ),
    "a ep_status_report as a task": Improvement(
        "What is no task is told in the words of upstream's 4.19.0 by workers of every release.",
        "wrong type of message in worker", "Non Task-type message received: EPStatusReport", ("3.8.0",),
    ),
    "a resource specification": Improvement(
        "A resource specification where none may be is refused in the words of upstream's 4.19.0.",
        "is not supported on GlobusComputeEngine", "Invalid Resource Specification Supplied: {'num_nodes'}", ("3.8.0",),
    ),
    "a resource specification that is no object": Improvement(SPECIFICATION, "Error: ", FAILED + "the header resource_specification: not an object"),
    "a resource specification that is no JSON": Improvement(UNANSWERED, None, FAILED + "the header resource_specification: not JSON"),
    "a resource specification of the wrong type": Improvement(UNANSWERED, None, FAILED + "the header resource_specification: not an object"),
    "no function": Improvement(UNANSWERED, None, FAILED + "the message has no header function_uuid"),
    "a function that is no id": Improvement(UNANSWERED, None, FAILED + "the header function_uuid is no id"),
    "a function of the wrong type": Improvement(UNANSWERED, None, FAILED + "the message has no header function_uuid"),
    "no headers": Improvement(UNANSWERED, None, FAILED + "the message has no header function_uuid"),
    "no task": Improvement("A task without its header is known by its body, and runs.", None, "00\ngARLAS4="),
    "a task of the wrong type": Improvement("A task without its header is known by its body, and runs.", None, "00\ngARLAS4="),
    "serializers that are no list": Improvement(
        "A text in place of the list of serializers is refused; upstream takes each of its letters for a serializer.",
        "Invalid strategy-like 'e'", FAILED + "the header result_serializers is no list of texts",
    ),
}
