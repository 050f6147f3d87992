"""Exceptions with the names of upstream, which users see in tracebacks."""


def known_as(module, name):
    def rename(cls):
        cls.__module__, cls.__name__, cls.__qualname__ = module, name, name
        return cls

    return rename


SDK = "globus_compute_sdk.errors.error_types"


@known_as(SDK, "SerdeError")
class SerdeError(Exception):
    pass


@known_as(SDK, "SerializationError")
class SerializationError(SerdeError):
    def __str__(self):
        return "Serialization failed: " + self.args[0]


@known_as(SDK, "DeserializationError")
class DeserializationError(SerdeError):
    def __str__(self):
        return "Deserialization failed: " + self.args[0]


@known_as(SDK, "MaxResultSizeExceeded")
class ResultTooLarge(Exception):
    def __str__(self):
        return "Task result of %dB exceeded current limit of %dB" % self.args

    def explanation(self):
        # The SDK gives wrong advice where a text speaks of serializing.
        return (
            "The result takes %s, and this endpoint lets a result take %s (engine.result_size_limit: %d in its "
            "config.yaml). Write it to a file and return the file's name, or have the endpoint's owner raise the limit."
            % (megabytes(self.args[0]), megabytes(self.args[1]), self.args[1])
        )


@known_as(SDK, "MaxResultSizeExceeded")
class MessageTooLarge(ResultTooLarge):
    def explanation(self):
        return (
            "The result takes %s as text, and no message may take more than %s. Write it to a file and return the "
            "file's name." % tuple(map(megabytes, self.args))
        )


def megabytes(size):
    return "%.1f MB" % (size / 1e6) if size >= 100000 else "%d bytes" % size


class Unsendable(Exception):
    """A function returned a value that can't be sent; the text says what to return instead."""


@known_as("globus_compute_endpoint.exceptions", "CouldNotExecuteUserTaskError")
class CouldNotExecuteUserTask(Exception):
    pass


@known_as("parsl.app.errors", "AppTimeout")
class AppTimeout(Exception):
    pass


class PackageNeeded(ImportError):
    """The payload needs a package that this interpreter lacks."""

    def __init__(self, package, what):
        import sys

        super().__init__(
            "%s needs the package '%s', which %s (Python %d.%d) does not have: install it there with "
            "`%s -m pip install %s`, or let the endpoint's worker_init choose an environment that has it"
            % ((what, package, sys.executable) + sys.version_info[:2] + (sys.executable, package)),
            name=package,
        )


class WrongPython(Exception):
    """Byte code of another minor version: running it could end this process instead of the task."""

    def __init__(self, theirs=None):
        import sys

        of, use = ("Python " + theirs,) * 2 if theirs else ("another Python or of an old dill", "the client's Python")
        super().__init__(
            "the function is byte code of %s, and this worker runs Python %d.%d, which can't run it. "
            "Serialize the function as source: ComputeSerializer(strategy_code=AllCodeStrategies()), "
            "PureSourceTextInspect or PureSourceDill; or use an endpoint with %s"
            % ((of,) + sys.version_info[:2] + (use,))
        )


PackageNeeded.__module__ = WrongPython.__module__ = "farcall"
