"""Packed buffers and what the SDK makes of them, sound and broken."""

import json
from importlib.metadata import version

from globus_compute_sdk.serialize import ComputeSerializer
from globus_compute_sdk.serialize import concretes

PACKABLE = [
    [],
    [""],
    ["00\ngAROLg==\n"],
    ["11\n[40]", '11\n{"y": 2}'],
    ['st\nf:def f():\n    return "é😀"\n', "11\n[]", "11\n{}"],
    ["é", "😀😀", "\n", "1\n2", "\u2028\x00"],
]

BROKEN = [
    "abc",
    "x\nabc",
    "\nabc",
    "-1\nabc",
    "4\nabc",
    "3\nabc9",
    "3\nabc9\n",
    "3\nabc0\n",
    "1.0\na",
    "3\nabc4\nabc",
]


def capture(shelf, options):
    serializer = ComputeSerializer()
    packed = [{"buffers": buffers, "packed": serializer.pack_buffers(buffers)} for buffers in PACKABLE]
    shelf.put("globus-compute-sdk", "buffers-packed.json", document(packed))
    if version("globus-compute-sdk").startswith("4."):
        # 3.x unpacks what is inside of combined buffers by the lenient rule of tasks.
        strict = [{"packed": text, **attempt(serializer.unpack_buffers, text)} for text in BROKEN]
        shelf.put("globus-compute-sdk", "buffers-split.json", document(strict))

    lenient = []
    one, two, three = "11\n1", "11\n[2]", '11\n{"é": 3}'
    sound = serializer.pack_buffers([one, two, three])
    for text in [sound, sound[:-2], sound + "\n", sound[:-1] + "1\nx"]:
        lenient.append({"packed": text, **attempt(serializer.unpack_and_deserialize, text)})
    for text in [
        f"4\n{one}6\n{two}100\n{three}",
        f"100\n{one}",
        serializer.pack_buffers([one, two]),
        serializer.pack_buffers([one, two, three, one]),
        "",
    ]:
        lenient.append({"packed": text, **attempt(serializer.unpack_and_deserialize, text)})
    shelf.put("globus-compute-sdk", "buffers-task.json", document(lenient))

    classes = [
        value
        for value in vars(concretes).values()
        if isinstance(value, type) and getattr(value, "identifier", None)
    ]
    strategies = [
        {"name": found.__name__, "identifier": found.identifier, "for_code": getattr(found, "for_code", None)}
        for found in sorted(classes, key=lambda found: found.__name__)
    ]
    shelf.put("globus-compute-sdk", "strategies.json", document(strategies))


def attempt(function, text):
    try:
        return {"result": function(text)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def document(value):
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
