"""Pickles, with dill when this interpreter has it and without it when it has not.

What dill writes for a function names a few constructors of its own module. Without dill they are read by the
equivalents here. What is written is a plain pickle whenever the value allows: every client reads it, and it is made
by the interpreter's C code.
"""

import __main__
import _thread
import builtins
import io
import pickle
import sys
import types

from .errors import PackageNeeded, WrongPython

# What PROTOCOL every Python since 3.8 can read, and the original writes.
PROTOCOL = 4

HERE = "%d.%d" % sys.version_info[:2]

# Threads read payloads at the same time.
_origin = _thread._local()
_dill = None
_dill_sought = False


def byte_code_of(version):
    """From which Python the byte code in the next payloads is, when that is known."""
    if getattr(_origin, "version", "") == version:
        return
    _origin.version = version
    theirs = ".".join(version.split(".")[:2]) if version else HERE
    _origin.foreign = None if theirs == HERE else theirs
    _origin.own = bool(version) and theirs == HERE


def foreign():
    return getattr(_origin, "foreign", None)


def dill():
    global _dill, _dill_sought
    if not _dill_sought:
        _dill_sought = True
        try:
            import dill as found

            _dill = found
        except ImportError:
            pass
    return _dill


def dill_or_raise(what):
    found = dill()
    if found is None:
        raise PackageNeeded("dill", what)
    return found


class Reader(pickle.Unpickler):
    # Whether only what every function names was named.
    plain = True

    def find_class(self, module, name):
        if module not in PLAIN:
            self.plain = False
        if module in ("dill._dill", "dill.dill"):
            return constructor(name)
        if module == "dill" and name == "_dill" and dill() is None:
            return types.SimpleNamespace(**CONSTRUCTORS)
        if name == "__main__" and module in ("__builtin__", "builtins"):
            return __main__.__dict__
        if name == "CodeType" and module == "types" and foreign() is not None:
            raise WrongPython(foreign())
        if (module, name) in SHELL_FUNCTIONS and module not in sys.modules:
            # Importing the SDK for these takes most of a second, and its releases don't read each other's.
            return shell_class(module, name)
        try:
            return super().find_class(module, name)
        except ImportError as error:
            if (module, name) == SHELL_RESULT:
                return shell_class(module, name)
            if module.split(".")[0] == "dill":
                raise PackageNeeded("dill", "Reading this payload") from error
            raise


def constructor(name):
    """What dill's module calls by this name."""
    if name == "_create_code":
        if foreign() is not None:
            raise WrongPython(foreign())
        return create_code
    if name == "_create_function":
        return create_function
    if name == "NoneType":
        return type(None)
    found = dill()
    if found is not None:
        return getattr(found._dill, name)
    if name in CONSTRUCTORS:
        return CONSTRUCTORS[name]
    raise PackageNeeded("dill", "Reading this payload (it names dill's %s)" % name)


# Constructors of functions, and builtins.
PLAIN = {"dill._dill", "dill.dill", "__builtin__", "builtins"}

SHELL_RESULT = ("globus_compute_sdk.sdk.shell_function", "ShellResult")
SHELL_FUNCTIONS = {
    ("globus_compute_sdk.sdk.shell_function", "ShellFunction"),
    ("globus_compute_sdk.sdk.mpi_function", "MPIFunction"),
}


def shell_class(module, name):
    from . import shell_function

    return shell_function.STAND_INS[module, name]


def loads(data):
    return joined(Reader(io.BytesIO(data)).load())


def joined(value):
    """An instance of a class that an earlier task has left in `__main__` joins that class."""
    cls = type(value)
    if cls.__module__ == "__main__":
        try:
            value.__class__ = getattr(__main__, cls.__name__)
        except (AttributeError, TypeError):
            pass
    return value


# The same function is called again and again, and reading it takes longer than all the rest. Its code can't change, so
# it is kept; the function itself can, so each call gets a new one.
_functions = {}
MOST_FUNCTIONS, LONGEST_FUNCTION = 64, 1 << 16


def function(payload, data):
    """What loads(data()) returns, for a payload that most often is a function."""
    known = _functions.get(payload)
    if known is not None and foreign() is None:
        code, name, defaults, more = known
        value = types.FunctionType(code, __main__.__dict__, name, defaults)
        for attribute, content in more:
            setattr(value, attribute, dict(content) if attribute == "__annotations__" else content)
        return value
    reader = Reader(io.BytesIO(data()))
    value = reader.load()
    if reader.plain and len(payload) <= LONGEST_FUNCTION and is_plain(value):
        if len(_functions) >= MOST_FUNCTIONS:
            _functions.clear()
        _functions[payload] = recipe(value)
    return joined(value)


def recipe(value):
    """What another one like this function is made of: few have what their code does not say."""
    start = value.__code__, value.__name__, value.__defaults__
    bare = types.FunctionType(start[0], __main__.__dict__, *start[1:])
    names = ("__annotations__", "__doc__", "__module__", "__qualname__")
    contents = [(name, getattr(value, name)) for name in names if getattr(value, name) != getattr(bare, name)]
    return start + ([(name, dict(c) if name == "__annotations__" else c) for name, c in contents],)


CONSTANTS = (type(None), bool, int, float, complex, str, bytes)


def is_plain(value):
    """Whether a function consists of its code and of what can't change."""
    return (
        type(value) is types.FunctionType
        and value.__globals__ is __main__.__dict__
        and value.__closure__ is None
        and value.__kwdefaults__ is None
        and not value.__dict__
        and all(type(default) in CONSTANTS for default in value.__defaults__ or ())
        and all(
            type(annotation) in CONSTANTS or getattr(annotation, "__module__", None) == "builtins"
            for annotation in value.__annotations__.values()
        )
    )


class NotPlain(Exception):
    pass


class PlainWriter(pickle.Pickler):
    """Writes values made of builtins only; the C code asks about everything else."""

    def reducer_override(self, value):
        raise NotPlain


def dumps(value):
    plain = io.BytesIO()
    try:
        PlainWriter(plain, PROTOCOL).dump(value)
        return plain.getvalue()
    except NotPlain:
        pass
    found = dill()
    try:
        if "%s.shell_function" % __package__ in sys.modules:
            return dumps_with_stand_ins(value, found)
        return pickle.dumps(value, PROTOCOL) if found is None else found.dumps(value)
    except Exception as error:
        if found is not None:
            raise
        raise PackageNeeded("dill", "Serializing a value of type %s (%s)" % (type(value).__name__, error)) from error


def dumps_with_stand_ins(value, found):
    """When functions of the SDK have run without it: the value may hold what they returned."""
    from . import shell_function

    pickler, protocol = (pickle._Pickler, PROTOCOL) if found is None else (found.Pickler, found.settings["protocol"])
    data = io.BytesIO()
    shell_function.writer(pickler)(data, protocol).dump(value)
    return data.getvalue()


# What dill's constructors do. The first two are for every function and so are always ours: dill's take as long as
# all the rest of reading it. The others are for interpreters without dill.


def create_function(code, namespace, name=None, defaults=None, closure=None, attributes=None, kwdefaults=None):
    namespace = namespace or {}
    function = types.FunctionType(code, namespace, name, defaults, closure)
    if attributes is not None:
        function.__dict__.update(attributes)
    if kwdefaults is not None:
        function.__kwdefaults__ = kwdefaults
    namespace.setdefault("__builtins__", builtins)
    return function


def create_code(*args):
    # Since Python 3.10 the old line table comes first, for older readers; old releases of dill leave it out there, too,
    # and only whoever knows that the code is of this version can tell it from that of an older one.
    fields = args[1:] if not isinstance(args[0], int) else args
    expected = 18 if sys.version_info >= (3, 11) else 16
    usual = (fields is args) == (sys.version_info < (3, 10)) or getattr(_origin, "own", False)
    if len(fields) == expected and usual and type(fields[6]) is bytes:
        return types.CodeType(*fields)
    # Of another Python, or of an old dill: dill may know how to turn it into something.
    found = dill()
    if found is None:
        raise WrongPython()
    return found._dill._create_code(*args)


def create_cell(contents=None):
    return types.CellType(contents)


def create_type(cls, *args):
    return cls(*args)


def load_type(name):
    for module in (types, builtins):
        found = getattr(module, name, None)
        if isinstance(found, type):
            return found
    special = {"BuiltinMethodType": types.BuiltinFunctionType, "PartialType": "functools.partial"}.get(name)
    if special == "functools.partial":
        import functools

        return functools.partial
    if special is not None:
        return special
    raise PackageNeeded("dill", "Reading this payload (it names the type %s)" % name)


def import_module(name, safe=False):
    parent, _, last = name.rpartition(".")
    try:
        if parent:
            found = getattr(__import__(parent, None, None, [last]), last, None)
            if isinstance(found, (types.ModuleType, type)):
                return found
            return __import__(name, None, None, [last])
        return __import__(name)
    except (ImportError, AttributeError, KeyError):
        if safe:
            return None
        raise


def get_attr(owner, name):
    return getattr(owner, name, None) or getattr(builtins, name)


def set_items(target, source):
    for key, value in source.items():
        target[key] = value


def create_namedtuple(name, fields, module, defaults=None):
    found = import_module(module + "." + name, safe=True)
    if found is not None:
        return found
    import collections

    return collections.namedtuple(name, fields, defaults=defaults, module=module)


def eval_repr(text):
    return eval(text)


CONSTRUCTORS = {
    "_create_function": create_function,
    "_create_code": create_code,
    "_create_cell": create_cell,
    "_create_type": create_type,
    "_load_type": load_type,
    "_import_module": import_module,
    "_get_attr": get_attr,
    "_setitems": set_items,
    "_create_namedtuple": create_namedtuple,
    "_eval_repr": eval_repr,
}
