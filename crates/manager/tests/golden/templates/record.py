"""Records what upstream's own functions make of templates, options and schemas.

Run it with a Python that has globus-compute-endpoint, once for 3.8.0 and once for 4.19.0; it writes VERSION.json beside
itself. `tests/template_vectors.rs` replays the cases.
"""

import importlib.metadata
import inspect
import json
import logging
import pathlib
import pwd
import tempfile

import yaml
from globus_compute_endpoint.endpoint.config import utils

HERE = pathlib.Path(__file__).parent
VERSION = importlib.metadata.version("globus-compute-endpoint")

STRINGS = [
    "abc", "", " ", "a b", "it's", 'say "hi"', "a\nb", "a\nengine:\n  type: Evil", "\u00e9", "\u65e5\u672c", "\U0001f600",
    "a: b", "{{7*7}}", "{% raw %}", "- x", "# c", "null", "true", "5", "\\", "\\n", "\t", "\u0001", "\u007f", "a', 'b",
    "*ref", "&anchor", "!tag", "x" * 300, "module load conda; source activate x && echo $HOME",
]
NUMBERS = [5, -3, 0, 1.5, -0.25, 1e20, 1e-7, 1e16, 123456789012345678, 0.1, 2.0]
OTHERS = [True, False, None]
CONTAINERS = [
    [], [1, 2], ["a", "b"], ["a', 'b"], ["it's"], [None, True, 1.5], [["a"], {"b": "c"}], {}, {"a": 1},
    {"k": "v", "n": [1, "x"]}, {"a: b": 1}, {"yes": "no"}, {"\U0001f600": "\U0001f600"}, {"items": "x"},
]

FORMS = [
    "x: {{ v }}", "x: {{ v|default() }}", "x: {{ v|default('d', true) }}", "x: {% if v %}t{% else %}f{% endif %}",
    "x: {{ v == '\"abc\"' }}", "x: {{ v|shell_escape }}", "{% for i in v %}\n- {{ i }}{% endfor %}", "x: {{ v|length }}",
    "x: {{ v|tojson }}",
    "{{ v is string }} {{ v is number }} {{ v is mapping }} {{ v is sequence }} {{ v is boolean }} {{ v is none }}",
    "x: {{ v ~ '' }}", "x: [{{ v }}, {{ v }}]",
]

OPTIONS = {
    "name": "alice", "count": 3, "ratio": 0.5, "flag": True, "off": False, "words": ["one", "two", "three"], "numbers": [3, 1, 2],
    "table": {"b": "2", "a": "1"}, "nested": {"inner": {"deep": "value"}, "list": [{"id": "x"}, {"id": "y"}]},
}

TEMPLATES = [
    # undefined
    "a: 1\nb: {{ missing }}", "{{ missing|default }}", "{{ missing|default() }}", "{{ missing|default('x') }}", "{{ missing|d('x') }}",
    "{{ missing is defined }}", "{{ missing is undefined }}", "{% if missing %}a{% endif %}", "{% if missing is defined and missing %}a{% endif %}",
    "{{ missing.attribute }}", "{{ missing|upper }}", "{{ missing ~ 'x' }}", "{% for i in missing %}{% endfor %}", "{{ nested.missing|default('x') }}",
    "{{ nested['missing']|default('x') }}", "{{ words[7]|default('x') }}", "{{ none }}", "{{ none|default('x') }}", "{{ none|default('x', true) }}",
    # text and whitespace
    "plain\n", "plain\n\n", "  {%- if true %} a {% endif -%}  b", "{# comment #}x", "{% raw %}{{ x }}{% endraw %}", "a\r\nb\r\n", "{{ '{{' }}",
    "{% set x = 5 %}{{ x }}", "{% set x %}a{% endset %}{{ x }}", "{% with x = 1 %}{{ x }}{% endwith %}",
    # conditions
    "{% if name == '\"alice\"' %}yes{% endif %}", "{% if name == 'alice' %}yes{% else %}no{% endif %}", "{% if count > 2 and not off %}yes{% endif %}",
    "{% if 'ali' in name %}yes{% endif %}", "{% if '\"one\"' in words %}yes{% endif %}", "{% if 'a' in table %}yes{% endif %}",
    "{{ 'yes' if flag else 'no' }}", "{{ 'yes' if off }}", "{% if count is odd %}odd{% endif %}", "{{ count is divisibleby 3 }}", "{{ count in [1, 2, 3] }}",
    "{% if count == 1 %}a{% elif count == 3 %}b{% else %}c{% endif %}", "{{ not flag }}", "{{ flag and off }}", "{{ count == 3.0 }}", "{{ 1 < count < 5 }}",
    "{{ name != '\"bob\"' }}", "{{ flag == true }}", "{{ flag is true }}", "{{ off is false }}", "{{ count is integer }}", "{{ ratio is float }}",
    "{{ words is iterable }}", "{{ name is lower }}", "{{ count is eq 3 }}", "{{ count is gt 1 }}", "{{ count is sameas 3 }}",
    # loops
    "{% for w in words %}{{ loop.index }}:{{ w }} {% endfor %}", "{% for w in words %}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "{% for k, v in table.items() %}{{ k }}={{ v }} {% endfor %}", "{% for k in table %}{{ k }} {% endfor %}", "{% for k, v in table|dictsort %}{{ k }}={{ v }} {% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}", "{% for i in range(1, 10, 3) %}{{ i }} {% endfor %}", "{% for i in [] %}a{% else %}empty{% endfor %}",
    "{% for n in numbers if n > 1 %}{{ n }}{% endfor %}", "{% for n in numbers|sort %}{{ n }}{% endfor %}", "{% for x in nested.list %}{{ x.id }} {% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}", "{% for w in words %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for n in numbers %}{% set ns.n = ns.n + n %}{% endfor %}{{ ns.n }}",
    # macros
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, b=3) }}", "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}",
    "{% filter upper %}abc{% endfilter %}",
    # filters
    "{{ name|upper }}", "{{ name|length }}", "{{ name|replace('a', 'b') }}", "{{ 'a,b'|replace(',', ';') }}", "{{ words|first }}", "{{ words|last }}",
    "{{ words|join(',') }}", "{{ words|join }}", "{{ numbers|sum }}", "{{ numbers|max }}", "{{ numbers|min }}", "{{ numbers|sort|join(' ') }}", "{{ numbers|sort(reverse=true)|join(' ') }}",
    "{{ numbers|reverse|join(' ') }}", "{{ numbers|map('string')|join(' ') }}", "{{ nested.list|map(attribute='id')|join(' ') }}", "{{ numbers|select('odd')|join(' ') }}",
    "{{ numbers|reject('odd')|join(' ') }}", "{{ nested.list|selectattr('id', 'equalto', '\"x\"')|list|length }}", "{{ 1.7|round }}", "{{ 1.25|round(1) }}", "{{ 7|round(0, 'ceil') }}", "{{ '5'|int + 1 }}", "{{ 'x'|int }}", "{{ '1.5'|float }}", "{{ 5|float }}", "{{ -5|abs }}",
    "{{ 'a b'|title }}", "{{ 'aB'|lower }}", "{{ 'aB'|capitalize }}", "{{ '  a '|trim }}|", "{{ 'abc'|reverse }}", "{{ 'abc'|list|join('-') }}", "{{ 'x'|indent(4) }}", "{{ 'a\nb'|indent(2) }}",
    "{{ '%05d'|format(42) }}", "{{ '%s-%s'|format('a', 1) }}", "{{ '%.2f'|format(1.5) }}", "{{ 'x'|center(9) }}|", "{{ 'ab'|center(7) }}|", "{{ 'a <b>'|e }}", "{{ 'a b'|urlencode }}", "{{ numbers|unique|list|length }}", "{{ numbers|batch(2)|list|length }}", "{{ numbers|slice(2)|list|length }}", "{{ 'abc'|wordcount }}",
    "{{ numbers|length }}", "{{ numbers|count }}", "{{ [1, 2]|tojson }}", "{{ {'a': 1}|tojson }}", "{{ '<a>'|tojson }}", "{{ 'abc'|truncate(2) }}", "{{ 1000|filesizeformat }}", "{{ '<b>x</b>'|striptags }}", "{{ table|items|list|length }}", "{{ 'abc'|shell_escape }}", "{{ '5'|shell_escape }}", "{{ 5|shell_escape }}", "{{ words|shell_escape }}", "{{ words[0]|shell_escape }}",
    # methods
    "{{ 'Ab'.upper() }} {{ 'Ab'.lower() }}", "{{ 'a,b'.split(',') | length }}", "{{ 'a b'.split()[1] }}", "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('c') }}", "{{ ' x '.strip() }}|", "{{ 'x'.join(['a', 'b']) }}",
    "{{ 'a-b'.replace('-', '_') }}", "{{ '{}-{}'.format(1, 2) }}", "{{ '{a}'.format(a=1) }}", "{{ '{:>5}'.format('x') }}", "{{ table.get('a') }}", "{{ table.get('z', 'd') }}", "{{ table.keys()|list|length }}", "{{ table.values()|list|length }}", "{{ 'abc'.find('c') }}", "{{ 'abc'.count('b') }}", "{{ 'abc'.isdigit() }} {{ '12'.isdigit() }}", "{{ 'abc'.title() }}", "{{ name.strip('\"') }}", "{{ name[1:-1] }}",
    # arithmetic and literals
    "{{ 7 // 2 }} {{ 7 / 2 }} {{ 7 % 2 }} {{ 2 ** 8 }} {{ -7 // 2 }}", "{{ 1 + 2 * 3 }}", "{{ 'a' ~ 1 ~ true }}", "{{ 'a' + 'b' }}", "{{ 'ab' * 3 }}", "{{ [1] + [2] }}", "{{ (1, 2)[0] }}", "{{ {'a': 1}['a'] }}", "{{ {'a': 1}.a }}", "{{ 'abc'[1] }}", "{{ 'abc'[1:] }}", "{{ 'abc'[::-1] }}", "{{ numbers[0:2] }}", "{{ numbers[-1] }}", "{{ true }} {{ false }} {{ True }} {{ False }}", "{{ 1e3 }} {{ 1.0 }} {{ 1_000 }}", "{{ 10 ** 20 }}", "{{ 1 / 3 }}", "{{ [true, none] | length }}", "{{ ['a', 'b'] }}", "{{ {'a': 'b'} }}", "{{ dict(a=1) }}", "{{ ('a',) }}",
    # errors
    "{% if %}", "{{ a b }}", "{% for x in words %}", "{{ 1|nofilter }}", "{{ 1 is notest }}", "{{ nofunction() }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ ''.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ name.__init__ }}", "{{ nested.__class__ }}", "{% include 'nothing' %}", "{% extends 'nothing' %}", "{% include '../secret' %}", "{% import 'nothing' as n %}", "{{ name.nothing() }}", "{% unknown %}", "{{ 'x", "{% endif %}", "{% include 'nothing' ignore missing %}x", "{{ cycler }}", "{% do 1 %}", "{% break %}", "{% trans %}{% endtrans %}",
    # files
    "{% include 'part.j2' %}", "{% extends 'base.j2' %}{% block b %}mine{% endblock %}", "{% extends 'base.j2' %}{% block b %}{{ super() }}mine{% endblock %}", "{% import 'macros.j2' as m %}{{ m.twice(2) }}", "{% from 'macros.j2' import twice %}{{ twice(2) }}", "{% include 'sub/part.j2' %}", "{% include './part.j2' %}", "{% include ['nothing', 'part.j2'] %}", "{% set name = 'x' %}{% include 'part.j2' %}", "{% block b %}x{% endblock %}{{ self.b() }}", "{% include 'part.j2' without context %}",
    # the manager's variables
    "{{ user_runtime.python_version }}", "{{ '3.11' in user_runtime.python_version }}", "{{ user_runtime.globus_compute_sdk_version }}", "{{ user_runtime.globus_sdk_version }}", "{{ user_runtime['python_version'] }}", "{{ user_runtime.python.version }}", "{{ user_runtime.python.version_tuple[0] }}", "{{ user_runtime.platform.machine }}", "{{ user_runtime.nothing|default('x') }}", "{{ user_runtime.nothing }}", "{{ user_runtime.nothing.more|default('x') }}", "{% if user_runtime.nothing is defined %}a{% endif %}", "{{ 'python' in user_runtime }}", "{{ user_runtime.python_version.split()[0] }}", "{{ user_runtime.python_version[1:5] }}",
    "{{ parent_config.display_name }}", "{{ parent_config.multi_user }}", "{{ parent_config.nothing|default('x') }}",
    "{{ mapped_identity.local.uname }} {{ mapped_identity.local.uid }} {{ mapped_identity.local.gid }}", "{{ mapped_identity.local.dir }} {{ mapped_identity.local.shell }}", "{{ mapped_identity.local.gecos }}", "{{ mapped_identity.globus.id }}",
    "{{ _GC.user_runtime.python_version }}", "{{ _GC.mapped_identity.local.uname }}", "{{ _GC.env.SITE }}", "{{ _GC.env.NOTHING|default('x') }}", "{{ _GC.parent_config.display_name }}",
]

SCHEMA_CASES = [
    ({"endpoint_setup": {"type": "string"}}, {"endpoint_setup": 5}), ({"endpoint_setup": {"type": "string"}}, {"endpoint_setup": "x"}),
    ({"c": {"enum": ["docker", "podman"]}}, {"c": "dockr"}), ({"c": {"enum": ["docker", None, 1]}}, {"c": True}), ({"c": {"const": "x"}}, {"c": "y"}),
    ({"n": {"type": "integer"}}, {"n": "5"}), ({"n": {"type": "integer"}}, {"n": 1.5}), ({"n": {"type": "integer"}}, {"n": 2.0}), ({"n": {"type": ["integer", "null"]}}, {"n": "x"}), ({"n": {"type": "number"}}, {"n": True}), ({"n": {"type": "boolean"}}, {"n": 1}), ({"n": {"type": "array"}}, {"n": {}}), ({"n": {"type": "object"}}, {"n": []}), ({"n": {"type": "null"}}, {"n": "null"}),
    ({"n": {"minimum": 1}}, {"n": 0}), ({"n": {"maximum": 5}}, {"n": 6}), ({"n": {"exclusiveMinimum": 1}}, {"n": 1}), ({"n": {"exclusiveMaximum": 5}}, {"n": 5}), ({"n": {"multipleOf": 2}}, {"n": 3}), ({"n": {"maximum": 1.5}}, {"n": 2}),
    ({"s": {"minLength": 3}}, {"s": "ab"}), ({"s": {"minLength": 1}}, {"s": ""}), ({"s": {"maxLength": 3}}, {"s": "abcd"}), ({"s": {"pattern": "^[a-z]+$"}}, {"s": "A1"}), ({"s": {"pattern": "^[a-z]+$"}}, {"s": "abc"}), ({"s": {"pattern": "b"}}, {"s": "abc"}), ({"s": {"format": "email"}}, {"s": "no"}),
    ({"l": {"minItems": 2}}, {"l": [1]}), ({"l": {"maxItems": 1}}, {"l": [1, 2]}), ({"l": {"uniqueItems": True}}, {"l": [1, 1]}), ({"l": {"items": {"type": "string"}}}, {"l": ["a", 5]}), ({"l": {"contains": {"type": "string"}}}, {"l": [1]}), ({"l": {"minItems": 1}}, {"l": []}),
    ({"o": {"type": "object", "properties": {"i": {"type": "string"}}}}, {"o": {"i": 5}}), ({"o": {"required": ["a"]}}, {"o": {}}), ({"o": {"minProperties": 2}}, {"o": {"a": 1}}), ({"o": {"maxProperties": 1}}, {"o": {"a": 1, "b": 2}}), ({"o": {"propertyNames": {"pattern": "^a"}}}, {"o": {"b": 1}}), ({"o": {"additionalProperties": False}}, {"o": {"a": 1}}), ({"o": {"additionalProperties": {"type": "string"}}}, {"o": {"a": 1}}), ({"o": {"dependentRequired": {"a": ["b"]}}}, {"o": {"a": 1}}),
    ({"x": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}, {"x": []}), ({"x": {"oneOf": [{"type": "string"}, {"type": "integer"}]}}, {"x": []}), ({"x": {"oneOf": [{"type": "integer"}, {"minimum": 1}]}}, {"x": 5}), ({"x": {"not": {"type": "string"}}}, {"x": "s"}), ({"x": {"allOf": [{"type": "string"}, {"minLength": 5}]}}, {"x": "s"}), ({"x": False}, {"x": 1}), ({"x": {"anyOf": [{"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "integer"}]}}, {"x": {"a": 5}}), ({"x": {"if": {"type": "string"}, "then": {"minLength": 3}}}, {"x": "a"}), ({"x": {"$ref": "#/$defs/word"}}, {"x": 5}),
    ({"s": {"type": "string"}, "n": {"type": "integer"}}, {"s": 5, "n": "x"}), ({"s": {"enum": ["a" * 40, "b" * 40, "c" * 40]}}, {"s": "it's"}), ({"s": {"type": "string"}}, {"s": {"a": "x" * 60, "b": "y" * 60}}), ({}, {"anything": [1]}), ({"s": {"type": "string"}}, {"s": None}), ({"s": {"type": "string"}}, {"other": 1}),
]


def schema_cases():
    for properties, options in SCHEMA_CASES:
        yield {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": properties, "$defs": {"word": {"type": "string"}}}, options
    strict = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    yield strict, {"a": "x"}
    yield strict, {"typo": "x"}
    yield strict, {"typo": "x", "more": 1}
    yield {"type": "object", "required": ["a"]}, {}
    yield {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"type": "string"}}}, {"a": 5}
    yield {"properties": {"a": {"type": 5}}}, {"a": 5}
    yield {"properties": {"a": {"type": "strin"}}}, {"a": 5}
    yield {}, {"a": 5}


def cases():
    for value in STRINGS + NUMBERS + OTHERS + CONTAINERS:
        for form in FORMS:
            yield {"template": form, "options": {"v": value}}
    for template in TEMPLATES:
        yield {"template": template, "options": OPTIONS}
    for schema, options in schema_cases():
        yield {"template": "ok", "options": options, "schema": schema}
    for word in ("parent_config", "user_runtime", "mapped_identity", "_GC", "self"):
        yield {"template": "ok", "options": {word: 1}}


FILES = {
    "part.j2": "part of {{ name }}", "base.j2": "a {% block b %}base{% endblock %} z", "sub/part.j2": "sub",
    "macros.j2": "{% macro twice(x) %}{{ x * 2 }}{% endmacro %}",
}
RUNTIME = {
    "globus_compute_sdk_version": VERSION, "globus_sdk_version": "3.56.1", "python_version": "3.11.7 (main, Dec  4 2023, 18:10:11) [Clang 15.0.0]",
    "python": {"version": "3.11.7", "version_tuple": ["3", "11", "7"], "compiler": "Clang 15"}, "platform": {"machine": "x86_64"},
}
ACCOUNT = {"uname": "alicia", "uid": 4711, "gid": 4712, "gecos": "Alicia, Room 5", "shell": "/bin/bash", "dir": "/home/alicia"}
IDENTITY = "11111111-2222-4333-8444-555555555555"


class Parent:
    display_name = "The manager's name"
    multi_user = True


def render(directory, case):
    more = {}
    if "mapped_identity" in inspect.signature(utils.render_config_user_template).parameters:
        from globus_compute_endpoint.endpoint.identity_mapper import MappedPosixIdentity

        account = pwd.struct_passwd((ACCOUNT["uname"], "x", ACCOUNT["uid"], ACCOUNT["gid"], ACCOUNT["gecos"], ACCOUNT["dir"], ACCOUNT["shell"]))
        more["mapped_identity"] = MappedPosixIdentity(local_user_record=account, matched_identity=IDENTITY, globus_identity_candidates=[])
    return utils.render_config_user_template(
        parent_config=Parent(), user_config_template=case["template"], user_config_template_path=directory / "user_config_template.yaml.j2",
        user_config_schema=case.get("schema"), user_opts=case["options"], user_runtime=RUNTIME, **more,
    )


def outcome(directory, case):
    try:
        text = render(directory, case)
    except Exception as error:
        return {"exception": type(error).__name__, "message": str(error)}
    found = {"text": text}
    try:
        found["yaml"] = json.loads(json.dumps(yaml.safe_load(text), allow_nan=False))
    except Exception:
        pass
    return found


def main():
    import os

    logging.disable(logging.CRITICAL)
    os.environ.clear()
    os.environ["SITE"] = "here"
    os.getgrouplist = lambda name, gid: [gid]
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        for name, text in FILES.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(text)
        found = [{**case, "outcome": outcome(directory, case)} for case in cases()]
    document = {
        "package": f"globus-compute-endpoint {VERSION}", "files": FILES, "user_runtime": RUNTIME, "account": ACCOUNT, "identity": IDENTITY,
        "parent_config": {"display_name": Parent.display_name, "multi_user": True}, "environment": {"SITE": "here"},
    }
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in found)
    head = json.dumps(document, indent=1)[:-2]
    (HERE / f"{VERSION}.json").write_text(f'{head},\n "cases": [\n{lines}\n]}}\n')
    print(VERSION, len(found), "cases")


main()
