"""Serialized buffers: three characters that name a strategy, then what that strategy wrote.

All strategies of the SDK, both ways. Lengths are in characters. What is refused is refused in the SDK's words,
because users and their programs look for them.
"""

import binascii
import json
import struct
import sys
import types

from . import pickles
from .errors import DeserializationError, SerdeError, SerializationError, Unsendable


# Bound here because functions may replace names in the modules.
to_json, from_json = json.dumps, json.loads


class Base64:
    """The identifier of a strategy, and bytes that are sent as Base64 in lines of 76 characters."""

    __slots__ = ("identifier", "data")

    def __init__(self, identifier, data):
        self.identifier, self.data = identifier[:-1].encode(), data

    def __len__(self):
        """The size of the value as its user knows it; the text is a third longer."""
        return len(self.data)

    def __str__(self):
        return self.joined(b"", b"\n").decode()

    def json(self):
        # Of all its characters JSON escapes only the newlines.
        return self.joined(b'"', b"\\n")

    def joined(self, quote, newline):
        """The text, made once in the form that is sent: a megabyte has seventeen thousand lines."""
        text, at, parts = binascii.b2a_base64(self.data, newline=False), 0, [quote + self.identifier]
        if len(text) <= 76:
            return newline.join((parts[0], text, quote))
        while len(text) - at >= MANY_LINES.size:
            parts.append(newline.join(MANY_LINES.unpack_from(text, at)))
            at += MANY_LINES.size
        parts += [text[start : start + 76] for start in range(at, len(text), 76)]
        parts.append(quote)
        return newline.join(parts)


# Cuts lines several times as fast as slices do. There are so few that the next ones reuse the memory of the last.
MANY_LINES = struct.Struct("76s" * 256)


def run_source(source, name):
    namespace = {}
    exec(source, namespace)
    return namespace[name]


def source_of(function):
    """The name and the source of a function, by the standard library alone."""
    import inspect

    return function.__name__, inspect.getsource(function)


def dill_source_of(function):
    source = pickles.dill_or_raise("Finding the source of a function").source
    return function.__name__, source.getsource(function, lstrip=True)


class Strategy:
    deprecated = False


class DillDataBase64(Strategy):
    identifier, for_code = "00\n", False

    @classmethod
    def packed(cls, value):
        return Base64(cls.identifier, pickles.dumps(value))

    @classmethod
    def encode(cls, value):
        return str(cls.packed(value))

    @staticmethod
    def decode(payload):
        # What most calls send for one of their two arguments.
        if payload == NO_KEYWORDS:
            return {}
        if payload == NO_ARGUMENTS:
            return ()
        if payload == EMPTY_LIST:
            return []
        return pickles.loads(binascii.a2b_base64(payload[3:]))


NO_ARGUMENTS, EMPTY_LIST, NO_KEYWORDS = "00\ngAQpLg==\n", "00\ngARdlC4=\n", "00\ngAR9lC4=\n"
NOTHING = Base64("00\n", b"\x80\x04N.")


class DillCode(DillDataBase64):
    identifier, for_code = "01\n", True

    @staticmethod
    def decode(payload):
        return pickles.load_function(payload, lambda: binascii.a2b_base64(payload[3:]))


class PickleCode(Strategy):
    identifier, for_code, deprecated = "02\n", True, True

    @staticmethod
    def encode(value):
        raise NotImplementedError("Pickle serialization is no longer supported")

    @staticmethod
    def decode(payload):
        return pickles.loads(binascii.a2b_base64(payload[3:]))


class DillCodeTextInspect(Strategy):
    identifier, for_code = "03\n", True
    source = staticmethod(source_of)

    @classmethod
    def encode(cls, value):
        return str(Base64(cls.identifier, pickles.dumps(cls.source(value))))

    @staticmethod
    def decode(payload):
        name, source = pickles.loads(binascii.a2b_base64(payload[3:]))
        return run_source(source, name)


class DillCodeSource(DillCodeTextInspect):
    identifier = "04\n"
    source = staticmethod(dill_source_of)


class PureSourceTextInspect(Strategy):
    identifier, for_code = "st\n", True
    source = staticmethod(source_of)

    @classmethod
    def encode(cls, value):
        return cls.identifier + ":".join(cls.source(value))

    @staticmethod
    def decode(payload):
        name, source = payload[3:].split(":", 1)
        return run_source(source, name)


class PureSourceDill(PureSourceTextInspect):
    identifier = "sd\n"
    source = staticmethod(dill_source_of)


class JSONData(Strategy):
    identifier, for_code = "11\n", False

    @classmethod
    def encode(cls, value):
        return cls.identifier + to_json(value)

    @staticmethod
    def decode(payload):
        return from_json(payload[3:])


class CombinedCode(Strategy):
    identifier, for_code = "10\n", True
    members = (DillCodeSource, DillCode, DillCodeTextInspect, PureSourceDill, PureSourceTextInspect)

    @classmethod
    def encode(cls, value):
        chunks = []
        for strategy in cls.members:
            try:
                payload = strategy.encode(value)
            except Exception:
                continue
            chunks += [payload[:3], payload[3:]]
        if not chunks:
            raise SerializationError("No serialization methods were successful")
        return cls.identifier + ":".join(chunks)

    @classmethod
    def decode(cls, payload):
        known = {strategy.identifier: strategy for strategy in cls.members}
        # Sources contain colons, too, so the parts after the pickles are often cut in wrong places. Pickles come first.
        tokens = iter(payload[3:].split(":"))
        tried = 0
        for identifier, body in zip(tokens, tokens):
            tried += 1
            if identifier not in known:
                raise DeserializationError("Invalid serialization id " + identifier)
            try:
                return known[identifier].decode(identifier + body)
            except Exception:
                continue
        raise DeserializationError("Deserialization failed after %d tries" % tried)


class Combination(Strategy):
    @classmethod
    def encode(cls, value):
        buffers, errors = [], []
        for strategy in cls.members:
            try:
                buffers.append(strategy.encode(value))
            except Exception as exception:
                errors.append("%s: %s" % (strategy.__name__, exception))
        if not buffers:
            raise SerializationError("\n\nSerialization errors:\n* " + "\n* ".join(errors))
        return cls.identifier + "".join("%d\n%s" % (len(buffer), buffer) for buffer in buffers)

    @classmethod
    def decode(cls, payload):
        errors = []
        for buffer in split_strictly(payload[3:]):
            identifier, newline, _ = buffer.partition("\n")
            if not newline:
                errors.append(
                    "Malformed data (no newline separator): %s%s" % (buffer[:50], "..." if len(buffer) > 50 else "")
                )
                continue
            strategy = STRATEGIES.get(identifier + newline)
            if strategy is None:
                errors.append("Invalid strategy identifier: " + identifier)
                continue
            try:
                return strategy.decode(buffer)
            except Exception as exception:
                errors.append("%s: %s" % (strategy.__name__, exception))
        raise DeserializationError("\n\nDeserialization errors:\n* " + ("\n* ".join(errors) or "unknown"))


class AllCodeStrategies(Combination):
    identifier, for_code = "12\n", True
    members = (PureSourceTextInspect, PureSourceDill, DillCode)


class AllDataStrategies(Combination):
    identifier, for_code = "13\n", False
    members = (JSONData, DillDataBase64)


ALL = (
    DillDataBase64,
    JSONData,
    AllDataStrategies,
    DillCode,
    PickleCode,
    DillCodeTextInspect,
    DillCodeSource,
    PureSourceTextInspect,
    PureSourceDill,
    CombinedCode,
    AllCodeStrategies,
)
STRATEGIES = {strategy.identifier: strategy for strategy in ALL}
IMPORT_PATHS = {
    module + strategy.__name__: strategy
    for strategy in ALL
    for module in ("globus_compute_sdk.serialize.", "globus_compute_sdk.serialize.concretes.")
}


def split_strictly(packed):
    buffers, at = [], 0
    while at < len(packed):
        end = packed.find("\n", at)
        if end < 0:
            raise ValueError("Missing newline delimiter")
        try:
            length = int(packed[at:end])
        except ValueError:
            raise ValueError("Invalid length delimiter: " + packed[at:end])
        if length < 0:
            raise ValueError("Length delimiter must be non-negative: %d" % length)
        at = end + 1
        if len(packed) - at < length:
            raise ValueError(
                "Truncated buffer: expected %d characters, but only %d characters remain" % (length, len(packed) - at)
            )
        buffers.append(packed[at : at + length])
        at += length
    return buffers


def decode(payload, allowed):
    header = payload[:3]
    strategy = STRATEGIES.get(header)
    if strategy is None:
        raise DeserializationError("Invalid header: %s in data payload" % header)
    if allowed and strategy.__name__ not in allowed:
        raise DeserializationError(refusal(strategy, allowed))
    return strategy.decode(payload)


def refusal(strategy, allowed):
    kind, payload = ("Code", "function") if strategy.for_code else ("Data", "arguments")
    return (
        "\n %s serializer %s disabled by current configuration."
        "\n The current configuration requires the *%s* to be serialized with one of the allowed %s classes:"
        "\n\n     Allowed serializers: %s" % (kind, strategy.__name__, payload, kind, ", ".join(sorted(allowed)))
    )


def decode_task(packed, allowed, function_python):
    """Function, arguments and keyword arguments. A length beyond the end is accepted, as it always was."""
    values, at, size = [], 0, len(packed)
    pickles.set_byte_code_version(function_python)
    while at < size:
        end = packed.find("\n", at)
        if end < 0:
            raise ValueError("not enough values to unpack (expected 2, got 1)")
        length = int(packed[at:end])
        if length < 0:
            raise ValueError("Length delimiter must be non-negative: %d" % length)
        at = end + 1 + length
        payload = packed[end + 1 : at]
        values.append(decode(payload, allowed))
    assert len(values) == 3, "Unpack expects 3 buffers, got %d" % len(values)
    return values


def encode_result(value, wanted):
    """Encodes a result by the first strategy that can. The result may itself be a function."""
    if value is None and not wanted:
        return NOTHING
    for_code = callable(value)
    if not wanted:
        strategies = (DillDataBase64, DillCode)
        first = DillCode if for_code else DillDataBase64
        try:
            return first.packed(value)
        except Exception:
            pass  # reported below, with the failure of the other strategy
    else:
        strategies = wanted
    failures = []
    for strategy in strategies:
        try:
            strategy = suitable(strategy, for_code)
            return getattr(strategy, "packed", strategy.encode)(value)
        except Exception as exception:
            failures.append(exception)
    if type(value) in NEVER_SENT:
        raise Unsendable(NEVER_SENT[type(value)])
    # All failures are in the group below. The text quotes the first that is no refusal: the user can mend that one.
    reasons = [words(failure) for failure in failures if not isinstance(failure, SerdeError)]
    explanation = "All strategies failed."
    if reasons:
        explanation += (
            " The function returned a value of type '%s', which can't be serialized: %s. Return what can be sent, such as "
            "numbers, text, lists and dicts" % (name_of(type(value)), reasons[0])
        )
    raise SerializationError(explanation) from gathered(failures)


# Types whose values can never be sent, and what to return instead.
NEVER_SENT = {
    types.GeneratorType: "The function returned a generator, which can't leave its process: return a list of what it "
    "yields, as in `return list(...)`.",
    types.CoroutineType: "The function returned a coroutine, which nobody has run (it is an `async def`, or calls "
    "one): define it with `def` and return `asyncio.run(...)`.",
    types.AsyncGeneratorType: "The function returned an asynchronous generator, which can't leave its process: run "
    "it with `asyncio.run(...)` and return a list of what it yields.",
}


def name_of(cls):
    return cls.__qualname__ if cls.__module__ == "builtins" else "%s.%s" % (cls.__module__, cls.__qualname__)


def words(failure):
    """What an exception says, in one line of bounded length."""
    try:
        text = " ".join(str(failure).split()) or type(failure).__name__
    except Exception:
        text = type(failure).__name__
    return text if len(text) <= 500 else text[:500] + "..."


def suitable(strategy, for_code):
    if isinstance(strategy, str):
        path, strategy = strategy, IMPORT_PATHS.get(strategy)
        if strategy is None:
            raise SerdeError(
                "Invalid strategy-like '%s'. Expected either a SerializationStrategy instance, a subclass of "
                "SerializationStrategy, or an import path to one." % path
            )
    if strategy.for_code != for_code:
        is_for, wanted = ("data", "code") if for_code else ("code", "data")
        raise SerdeError(
            "%s is a %s serialization strategy, expected a %s strategy." % (strategy.__name__, is_for, wanted)
        )
    if strategy.deprecated:
        raise SerdeError("%s is not a known serialization strategy." % strategy.__name__)
    return strategy


def gathered(failures):
    if sys.version_info >= (3, 11):
        return ExceptionGroup("Strategy failures:", failures)  # noqa: F821
    import traceback

    texts = ["".join(traceback.format_exception(type(e), e, e.__traceback__)) for e in failures]
    return SerdeError("Strategy failures: (%d sub-exceptions)\n%s" % (len(failures), "\n".join(texts)))
