"""Runs cases of identity mapping through the package `globus-identity-mapping`, and writes what it does to `upstream-0.4.0.json`.

    python3.11 -m venv V && V/bin/pip install globus-identity-mapping==0.4.0
    V/bin/python crates/manager/tests/identity_mapping/record.py

The cases are a list by hand and a generated part, which is the same each time. The Rust test `identity_mapping.rs` replays
the file. Where we differ on purpose, a case says why (`differs`) and what we do (`ours`).
"""

import importlib.metadata
import json
import logging
import random
import sys
from pathlib import Path

from globus_identity_mapping.loader import load_mappers

logging.disable(logging.CRITICAL)
VERSION = importlib.metadata.version("globus-identity-mapping")
ALICIA = "00000000-0000-4444-8888-111111111111"
ROBERTO = "00000000-0000-4444-8888-222222222222"
CONNECTOR, GATEWAY = "145812c8-decc-41f1-83cf-bb2a85a2a70b", "33333333-3333-4333-8333-333333333333"


def evaluate(document, identities):
    """What upstream does: whether the file loads, what each mapper offers, and what its validator finds first."""
    try:
        mappers = load_mappers(document, CONNECTOR, GATEWAY)
    except Exception as error:
        return {"refused": type(error).__name__}
    offers = []
    for mapper in mappers:
        try:
            # As pairs, for the order counts.
            offers.append([list(hits.items()) for hits in mapper.map_identities(identities)])
        except Exception as error:
            offers.append(type(error).__name__)
    return {"offers": offers, "first": first(mappers, identities)}


def first(mappers, identities):
    for mapper in mappers:
        for identity in identities:
            try:
                if name := mapper.map_identity(identity):
                    return name
            except Exception:
                continue
    return None


def expression(**mapping):
    return [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [mapping]}]


def person(**properties):
    return {"id": ALICIA, "status": "used", **properties}


def pattern(match, text, output="{0}", **more):
    return expression(source="{username}", match=match, output=output, **more), [person(username=text)]


def external(stdout, status=0, identities=None):
    command = ["/bin/sh", "-c", f"cat > /dev/null; printf %s \"$OUT\"; exit {status}"]
    command[2] = command[2].replace("$OUT", stdout.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`"))
    both = [person(), {"id": ROBERTO, "status": "unused"}]
    return [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}], identities or both


PATTERNS = [
    # Patterns of the guides.
    ("(.*)@example.com", ["mickey97@example.com", "mickey97@exampleXcom", "a@b@example.com", "@example.com", "a@example.com.org"]),
    (r"(.*)@example\.org", ["a@example.org", "a@exampleXorg"]),
    (r"(alice|bob)@example\.org", ["alice@example.org", "bob@example.org", "alicebob@example.org", "carol@example.org"]),
    ("(.*)@(.*)", ["a@b", "a@b@c", "ab"]),
    ("b34bb069-3b68-4d38-b4e6-bc1e4fc95332", ["b34bb069-3b68-4d38-b4e6-bc1e4fc95332", "x"]),
    # Characters that are not special here.
    ("a+b", ["a+b", "aab", "ab"]), ("[ab]", ["[ab]", "a"]), ("a{2}", ["a{2}", "aa"]), ("^a$", ["^a$", "a"]),
    ("a$", ["a$", "a"]), ("a-b_c d#e", ["a-b_c d#e"]), ("~&&--", ["~&&--"]), ("a<b>", ["a<b>"]), ("é*", ["ééé", "e"]),
    # Wildcards.
    ("(a?)(b*)", ["", "a", "abb", "bb", "ba"]), ("(.)(.)", ["ab", "a", "a\nb", "é€", "😀x"]), ("(.?)", ["", "a", "ab"]),
    ("(a*)*", ["", "b"]), ("((a)*)*", [""]), ("(a|b)*c", ["ababc", "c", "ab"]), ("(a*)(a*)", ["aaa"]),
    ("((a|ab)(c|bcd))(d*)", ["abcd"]), ("(a|ab)(c|bcd)(d*)", ["abcd"]), ("((a)|b)*", ["ab", "ba"]), ("(()|a)*b", ["b"]),
    ("(a()?)*", ["aa"]), ("(|a)b", ["b", "ab"]), ("(a|)", ["a", ""]), ("()", [""]), ("", ["", "a"]),
    # Escapes.
    (r"a\.b", ["a.b", "axb"]), (r"a\*", ["a*", "a"]), (r"a\?b", ["a?b", "ab"]), (r"a\|b", ["a|b"]), (r"\(a\)", ["(a)"]), (r"a\\", ["a\\"]),
    (r"\\\\", ["\\\\"]), (r"\\.", ["\\x", "\\."]), (r"a\d", ["a1"]), (r"\w", ["a"]), (r"\\a", ["\\a"]), (r"\[", ["["]),
    (r"\$", ["$"]), (r"\é", ["é"]), (r"\ ", [" "]), (r"\-", ["-"]), (r"\@", ["@"]),
    # References to groups.
    (r"(a|b)\1", ["aa", "bb", "ab"]), (r"(a)(b)\2\1", ["abba"]), (r"(a)?\1b", ["aab", "b"]), (r"(a\1)", ["a"]), (r"\1(a)", ["a"]), (r"(a)\2", ["a"]),
    (r"(.)(.)(.)(.)(.)(.)(.)(.)(.)(.)\10", ["abcdefghijj", "abcdefghija0"]), (r"(a)\10", ["aa0"]), (r"(.*)@\1", ["x@x", "x@y"]), (r"(a*)\1", ["aaaa", "aaa"]),
    (r"(a|(b))*\2", ["bab", "abb", "a"]),
    # What is refused.
    ("*", ["*"]), ("?a", ["?a"]), ("a*?", ["a"]), ("a??", ["a"]), (r"\*?", ["*"]), (r"\??", ["?"]), ("a**", ["a"]), ("a?*", ["a"]), ("(*a)", ["a"]),
    ("(|*)", [""]), ("(", [""]), (")", [""]), ("a(b", [""]), ("a)b", [""]), ("((a)", [""]),
    # Groups without a number.
    ("(?:a|b)(c)", ["ac", "bc", "c"]), ("(?!root)(.*)@x", ["root@x", "alice@x", "rootless@x"]), ("(?=a)(.*)", ["ab", "b"]), ("(?:a)*", ["aaa"]),
    ("(?!a)", ["", "a"]), ("(?i)a", ["A"]), ("(?=a", [""]),
]

CASELESS = [
    ("alicia", ["Alicia", "ALICIA", "alicia", "alice"]), ("(.*)@EXAMPLE.com", ["Bob@Example.COM"]), ("straße", ["STRASSE", "STRAßE", "straße"]),
    ("É", ["é", "e"]), ("k", ["K", "K"]), ("s", ["ſ", "S"]), (r"(a)\1", ["aA", "AA", "ab"]), ("i", ["I", "Í"]), ("σ", ["ς", "Σ"]), ("µ", ["μ"]),
]

LITERAL = [
    ("alicia", ["alicia", "alicia2"]), ("a.c", ["a.c", "abc"]), ("(a)|b*?+[]{}^$", ["(a)|b*?+[]{}^$", "a"]), ("*", ["*", ""]), ("a b", ["a b"]), ("é", ["é"]),
]

OUTPUTS = [
    "{0}", "{1}", "{2}", "{-1}", "{-2}", "{-3}", "{ 0 }", "{+1}", "{0_0}", "{00}", "{0x0}", "{}", "{username}", "{name}", "{nothing}", "{null}", "{9}", "{0}{1}",
    "x{0}y", "{{0}}", "{0", "0}", "a{b{0}c}", r"\{0}", r"\\{1}", r"\\\{0}", r"a\{", "", "plain", "{0}{0}{1}{0}", "{id}", "{1.0}", "{0}{username}@{name}",
]

SOURCES = [
    "{username}", "{name}", "{id}", "{status}", "{nothing}", "{null}", "{number}", "{0}", "{-1}", "plain", "", "{username}/{name}", r"\{username}", r"\\{name}", "{{name}}", "{na me}",
    "{object}", "{yes}",
]

DOCUMENTS = [
    None, {}, [], [{}], [{"DATA_TYPE": None}], [{"DATA_TYPE": ""}], ["x"], [None], [5], {"a": 1}, [{"DATA_TYPE": "ldap#1"}], [{"DATA_TYPE": "#1.0.0"}],
    [{"DATA_TYPE": "expression_identity_mapping"}], [{"DATA_TYPE": "expression_identity_mapping#1.0"}], [{"DATA_TYPE": "expression_identity_mapping#1.0.0"}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0#", "mappings": []}], [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": []}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [], "comment": "x", "id": 5}], [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": 5}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{}]}], [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [5]}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{"source": "a", "match": "a"}]}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{"source": "a", "output": "a"}]}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{"match": "a", "output": "a"}]}],
    [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [{"source": "a", "match": 5, "output": "a"}]}],
    [{"DATA_TYPE": "external_identity_mapping#1.0.0"}], [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": []}],
    [{"DATA_TYPE": "external_identity_mapping#2.0.0", "command": ["/bin/true"]}], [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/true"]}],
    [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/false"]}], [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/nowhere/at/all"]}],
    [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/sleep", 0, 0.0]}],
]

ALL = "identity_mapping_output#1.0.0"
ANSWERS = [
    "", " ", "\n", "null", "[]", "{}", "5", "hello", '{"result": []}', '{"result": null}', '{"result": {}}', '{"result": [{}]}', '{"result": [null]}',
    f'{{"DATA_TYPE": "{ALL}"}}', f'{{"DATA_TYPE": "{ALL}", "result": []}}', '{"DATA_TYPE": "identity_mapping_output#1.0.1", "result": []}',
    '{"DATA_TYPE": null, "result": []}', '{"DATA_TYPE": 5, "result": []}', '{"result": [], "comment": "x"}',
    f'{{"result": [{{"id": "{ALICIA}", "output": "alicia"}}]}}', f'{{"DATA_TYPE": "{ALL}", "result": [{{"id": "{ROBERTO}", "output": "roberto"}}]}}',
    f'{{"result": [{{"id": "{ALICIA}", "output": "a"}}, {{"id": "{ROBERTO}", "output": "r"}}, {{"id": "{ALICIA}", "output": "b"}}]}}',
    f'{{"result": [{{"id": "{ROBERTO}", "output": "r"}}, {{"id": "{ALICIA}", "output": "a"}}]}}',
    f'{{"result": [{{"id": "{ALICIA}", "output": ""}}]}}', f'{{"result": [{{"id": "{ALICIA}", "output": null}}]}}', f'{{"result": [{{"id": "{ALICIA}", "output": 5}}]}}',
    f'{{"result": [{{"id": "{ALICIA}"}}]}}', '{"result": [{"output": "a"}]}', f'{{"result": [{{"id": "{ALICIA}", "output": "a", "more": 1}}]}}',
    '{"result": [{"id": "1234567c-cf51-4032-afb8-05986708abcd", "output": "alicia"}]}', '{"result": [{"id": "alicia", "output": "alicia"}]}',
    f'{{"result": [{{"id": "{ALICIA.replace("-", "")}", "output": "a"}}]}}', f'{{"result": [{{"id": "{{{ALICIA}}}", "output": "a"}}]}}',
    f'{{"result": [{{"id": "urn:uuid:{ALICIA}", "output": "a"}}]}}', '{"result": [{"id": 5, "output": "a"}]}', '{"result": [{"id": "", "output": "a"}]}',
    f'{{"result": [{{"id": "{ALICIA}", "output": "é"}}]}} ', f'{{"result": [{{"id": "{ALICIA}", "output": "a"}}]}} x', f'[{{"result": [{{"id": "{ALICIA}", "output": "a"}}]}}]',
    f'{{"result": [{{"id": "{ALICIA}", "output": "a"}}, {{"id": "1234567c-cf51-4032-afb8-05986708abcd", "output": "a"}}]}}',
]

STATES = ["used", "private", "unused", "closed", "", None, "Used", 5]


def by_hand():
    for match, texts in PATTERNS:
        for text in texts:
            yield f"pattern {match!r} on {text!r}", *pattern(match, text, output="x")
            yield f"pattern {match!r} on {text!r}, groups", *pattern(match, text, output="<{0}>")
            yield f"pattern {match!r} on {text!r}, last group", *pattern(match, text, output="<{-1}>")
    for match, texts in CASELESS:
        for text in texts:
            yield f"caseless {match!r} on {text!r}", *pattern(match, text, output="x", ignore_case=True)
            if "\\" not in match:
                yield f"caseless literal {match!r} on {text!r}", *pattern(match, text, output="x", ignore_case=True, literal=True)
    for match, texts in LITERAL:
        for text in texts:
            yield f"literal {match!r} on {text!r}", *pattern(match, text, output="x", literal=True)
            yield f"literal {match!r} on {text!r}, groups", *pattern(match, text, output="{0}", literal=True)
    everything = person(username="u", name="n", null=None, number=5, object={}, yes=True, **{"9": "nine", "na me": "s"})
    for output in OUTPUTS:
        yield f"output {output!r}", expression(source="{username}{name}", match="(u)(n)", output=output), [everything]
        yield f"output {output!r} without a group", expression(source="{username}{name}", match="(x)?un", output=output), [everything]
    for source in SOURCES:
        yield f"source {source!r}", expression(source=source, match="(.*)", output="{0}"), [everything]
    for document in DOCUMENTS:
        yield f"document {json.dumps(document)}", document, [everything]
    for answer in ANSWERS:
        yield f"answer {answer!r}", *external(answer)
        yield f"answer {answer!r}, status 1", *external(answer, status=1)
    for state in STATES:
        yield f"state {state!r}", expression(source="{id}", match=".*", output="x"), [{"id": ALICIA, "status": state}, {"id": ROBERTO, "status": "used"}]
    yield "no state", expression(source="{id}", match=".*", output="x"), [{"id": ALICIA}, {"id": ROBERTO, "status": "used"}]
    yield "no identity", expression(source="{id}", match=".*", output="x"), []
    yield "no id", expression(source="{name}", match=".*", output="x"), [{"name": "n", "status": "used"}]
    yield "an identity twice", expression(source="{name}", match="(.*)", output="{0}"), [person(name="a"), person(name="b")]
    two = [{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [
        {"source": "{username}", "match": "(.*)@second", "output": "{0}"}, {"source": "{username}", "match": "(.*)@first", "output": "{0}"}]}]
    set_of_two = [person(username="a@first"), {"id": ROBERTO, "status": "used", "username": "r@second"}]
    yield "two mappings", two, set_of_two
    yield "two mappers", two + external(ANSWERS[19])[0], set_of_two
    yield "a mapper that fails", expression(source="{nothing}", match="x", output="x") + two, set_of_two
    yield "an unknown mapper", [{"DATA_TYPE": "ldap#1"}, *two], set_of_two


def generated():
    dice = random.Random(20261130)
    pieces = ["a", "b", "a", "b", ".", "*", "?", "|", "(", ")", "(", ")", "@", "\\.", "\\1", "\\2", "(?:", "(a|b)", "(.*)", "(a)?", "+", "[", "{", "^", "$"]
    outputs = ["x", "{0}", "{1}", "<{-1}>", "{0}{1}", "{username}"]
    for number in range(1500):
        match = "".join(dice.choice(pieces) for _ in range(dice.randint(1, 9)))
        text = "".join(dice.choice("aabb@.+[") for _ in range(dice.randint(0, 6)))
        more = {"ignore_case": True} if dice.random() < 0.2 else {}
        if more and dice.random() < 0.5:
            text = text.upper()
        yield f"generated {number}", *pattern(match, text, dice.choice(outputs), **more)
    for number in range(300):
        output = "".join(dice.choice(["{", "}", "\\", "0", "1", "-1", "name", "x", "{0}", "{name}", "{1}"]) for _ in range(dice.randint(0, 6)))
        if "\\{0}" in output or "\\{1}" in output or "\\{name}" in output:
            continue  # upstream replaces escaped references beside others
        yield f"generated output {number}", expression(source="{username}", match="(a)(b)?", output=output), [person(username=dice.choice(["a", "ab"]), name="n")]


def on_purpose():
    """Cases in which we differ: why, the document, the identities, what we do."""
    nobody = {"offers": [[[]]], "first": None}
    refused = {"refused": "InvalidMappingError"}
    alicia = {"offers": [[[(ALICIA, ["x"])]]], "first": "x"}
    why = "each alternative must match the whole text"
    yield why, *pattern("alicia|bob", "aliciax", "x"), nobody
    yield why, *pattern("alicia|carol|bob", "carolx", "x"), nobody
    why = "a line break at the end is part of the text"
    yield why, *pattern("(.*)@example.com", "a@example.com\n", "x"), nobody
    yield why, *pattern("alicia", "alicia\n", "x", literal=True), nobody
    yield why, *pattern("(.?)", "\n", "x"), nobody
    why = "a repeated group that can be empty keeps its last text that is not"
    for match, text, output, name in [("(a*)*", "aaa", "<{0}>", "<aaa>"), ("((a)*)*", "aa", "<{0}>", "<aa>"), ("(()|a)*b", "aab", "<{0}>", "<a>")]:
        yield why, *pattern(match, text, output), {"offers": [[[(ALICIA, [name])]]], "first": name}
    why = "a backslash at the end escapes nothing"
    yield why, *pattern("a\\", "a$b", "x"), refused
    why = "an empty group can't be repeated"
    yield why, *pattern("(?:)*a", "a", "x"), refused
    why = "regardless of case, i is not the Turkish dotted or dotless letter"
    yield why, *pattern("i", "İ", "x", ignore_case=True), nobody
    yield why, *pattern("i", "ı", "x", ignore_case=True), nobody
    why = "a literal pattern with backslashes is literal"
    yield why, *pattern("a\\.b", "a\\xb", "x", literal=True), nobody
    yield why, *pattern("a\\1", "a\\1", "x", literal=True), alicia
    why = "what is put in for a reference is not searched for references"
    injected = [person(username="{name}", name="root")]
    yield why, expression(source="{username} {name}", match="(.*) (.*)", output="{0}"), injected, {"offers": [[[(ALICIA, ["{name}"])]]], "first": "{name}"}
    why = "an escaped reference stays, also beside another to the same property"
    yield why, expression(source="x", match="(x)", output="\\{0}{0}"), [person()], {"offers": [[[(ALICIA, ["\\{0}x"])]]], "first": "\\{0}x"}
    why = "of Python's extensions, only (?: ), (?= ) and (?! ) are supported"
    for match, text in [("(?P<n>a)", "a"), ("(?<=a)", "a"), ("(?#x)a", "a"), ("(?i:a)", "A"), ("(?>a)", "a")]:
        yield why, *pattern(match, text, "x"), refused
    why = "a backslash before 0, or before three octal digits, is no reference"
    yield why, *pattern("\\0", "\0", "x"), refused
    yield why, *pattern("\\101", "A", "x"), refused
    why = "literal and ignore_case are true or false"
    yield why, *pattern("A", "a", "x", ignore_case="no"), refused
    yield why, *pattern("A", "a", "x", ignore_case=1), refused
    why = "source and output are text"
    yield why, expression(source=5, match="a", output="x"), [person()], refused
    yield why, expression(source="a", match="b", output=5), [person()], refused
    why = "a command is a list of texts and numbers"
    for command in ["/bin/true", ["/bin/true", None], ["/bin/true", True], [["/bin/true"]]]:
        yield why, [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}], [person()], refused
    why = "an identity without id is known by its sub"
    yield why, expression(source="{name}", match=".*", output="x"), [{"sub": ALICIA, "name": "n", "status": "used"}], alicia


def alternatives(match):
    """Whether a pattern has a `|` outside of parentheses."""
    depth, skip = 0, False
    for c in match:
        if skip:
            skip = False
        elif c == "\\":
            skip = True
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
        elif c == "|" and depth == 0:
            return True
    return False


def main():
    cases = []
    for name, document, identities in [*by_hand(), *generated()]:
        case = {"name": name, "document": document, "identities": identities}
        asked = document
        mappings = document[0].get("mappings") if isinstance(document, list) and document and isinstance(document[0], dict) else None
        if name.startswith("generated") and "(?:)" in mappings[0]["match"]:
            continue
        if name.startswith("generated") and alternatives(mappings[0]["match"]) and "refused" not in evaluate(document, []):
            # We treat such a pattern as if it were in parentheses.
            asked = expression(**{**mappings[0], "match": f"(?:{mappings[0]['match']})"})
            case["asked_in_parentheses"] = True
        cases.append(case | {"upstream": evaluate(asked, identities)})
    for why, document, identities, ours in on_purpose():
        upstream = evaluate(document, identities)
        if upstream == ours:
            print(f"no difference: {why}: {document}", file=sys.stderr)
        cases.append({"name": why, "document": document, "identities": identities, "upstream": upstream, "differs": why, "ours": ours})
    path = Path(__file__).with_name(f"upstream-{VERSION}.json")
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{path}: {len(cases)} cases of Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
