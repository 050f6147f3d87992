"""Reads and writes pickles, with dill if this interpreter has it.

The pickle of a function names a few constructors of dill's module. Without dill the equivalents here take their place.
Values are written as plain pickles if possible: every client reads these, and the interpreter's C code makes them.
"""

import __main__
import _thread
import builtins
import io
import pickle
import sys
import types

from .errors import PackageNeeded, WrongPython

# The protocol that upstream writes; every Python since 3.8 reads it.
PROTOCOL = 4

HERE = "%d.%d" % sys.version_info[:2]

# Threads read payloads at the same time.
_origin = _thread._local()
_dill = None
_dill_sought = False


def set_byte_code_version(version):
    """Sets the Python version of the byte code in the next payloads, or None if it is not known."""
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
    # Whether the pickle named only what the pickles of all functions name.
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
            # Importing the SDK for these takes most of a second, and a release can't read the pickles of others.
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
    """The object that has this name in dill's module."""
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


# Modules of the constructors of functions, and of builtins.
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
    return with_current_class(Reader(io.BytesIO(data)).load())


def with_current_class(value):
    """Makes an instance of a class in `__main__` one of the class that an earlier task has left there."""
    cls = type(value)
    if cls.__module__ == "__main__":
        try:
            value.__class__ = getattr(__main__, cls.__name__)
        except (AttributeError, TypeError):
            pass
    return value


# A cache of functions: the same one is called again and again, and reading its pickle takes longer than all the rest. The
# code can't change, so it is kept; the function object can, so each call gets a new one.
_functions = {}
MOST_FUNCTIONS, LONGEST_FUNCTION = 64, 1 << 16


def load_function(payload, data):
    """Returns what loads(data()) does, for a payload that is a function in most cases."""
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
        _functions[payload] = parts_of(value)
    return with_current_class(value)


def parts_of(function):
    """The parts from which load_function makes another function like this one."""
    start = function.__code__, function.__name__, function.__defaults__
    bare = types.FunctionType(start[0], __main__.__dict__, *start[1:])
    names = ("__annotations__", "__doc__", "__module__", "__qualname__")
    # Most functions have nothing that their code does not say.
    contents = [(name, getattr(function, name)) for name in names if getattr(function, name) != getattr(bare, name)]
    return start + ([(name, dict(c) if name == "__annotations__" else c) for name, c in contents],)


CONSTANTS = (type(None), bool, int, float, complex, str, bytes)


def is_plain(value):
    """Whether a value is a function that consists of its code and of constants."""
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
    """Writes values made of builtins only. The C code calls `reducer_override` for all others."""

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
    """Used once a ShellFunction has run without the SDK: the value may contain what it returned."""
    from . import shell_function

    pickler, protocol = (pickle._Pickler, PROTOCOL) if found is None else (found.Pickler, found.settings["protocol"])
    data = io.BytesIO()
    shell_function.writer(pickler)(data, protocol).dump(value)
    return data.getvalue()


# Equivalents of dill's constructors. Every function needs the first two, and ours are always used, because dill's take as
# long as all the rest of reading a function. The others are for interpreters without dill.


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
    # Since Python 3.10 dill writes the old line table first, for older readers. Old releases of dill leave it out: their
    # code looks like that of an older Python unless its version is known.
    fields = args[1:] if not isinstance(args[0], int) else args
    expected = 18 if sys.version_info >= (3, 11) else 16
    usual = (fields is args) == (sys.version_info < (3, 10)) or getattr(_origin, "own", False)
    if len(fields) == expected and usual and type(fields[6]) is bytes:
        return types.CodeType(*fields)
    # Code of another Python or of an old dill, which dill may be able to convert.
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
