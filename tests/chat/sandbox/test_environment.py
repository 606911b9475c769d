"""Templates that would occupy a thread or all memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import jinja2
import pytest

from inferd.chat.sandbox import budget as render_budget
from inferd.chat.sandbox.environment import BoundedEnvironment, BoundedTemplate
from inferd.chat.template import ChatTemplate
from inferd.errors import ConfigError, InvalidRequestError
from tests.chat.dialects.corpus import template_of
from tests.fakes import ByteTokenizer

_MANY = "{% for a in range(99999) %}"
_DOUBLED = "{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
_NESTED = "{% set ns = namespace(x=['a']) %}{% for a in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
_TUPLES = "{% set ns = namespace(x=('a', 'b')) %}{% for a in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}"
_LONG = "{% set long = 'a b,' * 9999 %}"
_LONGER = _LONG + "{% set list = [long] * 9999 %}"

LOOPS = {
    "nested loops": _MANY + _MANY + "{% endfor %}{% endfor %}",
    "recursive macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive macro of few levels": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "recursive macro with a loop": "{% macro f() %}" + _MANY + "{% endfor %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive block": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "recursive call block": "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{% endcall %}{% call f(n - 1) %}{% endcall %}"
    "{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "recursive loop of few levels": "{% for a in range(9) recursive %}{% if loop.depth < 40 %}{{ loop(range(9)) }}"
    "{% endif %}{% endfor %}",
    "long body": _MANY + "{% if true %}a{% endif %}" * 2000 + "{% endfor %}",
    "long macro": "{% macro f() %}"
    + "{% if true %}a{% endif %}" * 2000
    + "{% endmacro %}"
    + _MANY
    + "{{ f() }}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "squares": "{% set ns = namespace(x=9) %}{% for a in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "squares of floats as integers": "{{ (1e300 | int) * (1e300 | int) }}",
    "long integer": "{{ ('9' * 999999) | int(0, 16) }}",
    "integer by a method": "{{ (1).to_bytes(9999999999, 'big') }}",
    "round to many digits": "{{ 5 | round(-999999999) }}",
    "round up to many digits": "{{ 5 | round(999999999, 'ceil') }}",
    "sum of lists": "{{ ([[1]] * 99999) | sum(start=[]) }}",
    "map of sums": "{{ ([[[1]] * 999] * 99999) | map('sum', start=[]) | list }}",
    "select over a doubled list": _DOUBLED + "{{ ns.x | select('none') | list }}",
    "sort in loops": _LONG + _MANY + "{{ (long | list | sort)[0] }}{% endfor %}",
    "min in loops": _LONG + _MANY + "{{ long | min }}{% endfor %}",
    "unique in loops": _LONG + _MANY + "{{ long | unique | first }}{% endfor %}",
    "groupby in loops": _MANY + "{{ ([{'a': 1}] * 9999) | groupby('a') | length }}{% endfor %}",
    "search in loops": _LONG + _MANY + "{% if 'zz' in long %}{% endif %}{% endfor %}",
    "search of a variable in loops": _LONG + _MANY + "{% if a ~ 'z' in long %}{% endif %}{% endfor %}",
    "search in a list in loops": _LONGER + _MANY + "{% if 'zz' in list %}{% endif %}{% endfor %}",
    "find in loops": _LONG + _MANY + "{{ long.find('zz') }}{% endfor %}",
    "index in loops": _LONGER + _MANY + "{{ list.count('zz') }}{% endfor %}",
    "test in loops": _LONG + _MANY + "{{ long is upper }}{% endfor %}",
    "comparison in loops": _LONG + "{% set other = long ~ '' %}" + _MANY + "{{ long == other }}{% endfor %}",
    "comparison of doubled lists": _NESTED.replace("ns", "no") + _NESTED + "{{ ns.x == no.x }}",
    "test of doubled lists": _NESTED.replace("ns", "no") + _NESTED + "{{ ns.x is eq no.x }}",
    "comparison of changing lists": _NESTED.replace("ns", "no")
    + _NESTED
    + "{% for a in [1, 2] %}{{ loop.changed(ns.x if a == 1 else no.x) }}{% endfor %}",
    "key of doubled tuples": _TUPLES + "{{ {ns.x: 1} | length }}",
    "subscript of doubled tuples": _TUPLES + "{{ {}[ns.x] }}",
    "get of doubled tuples": _TUPLES + "{{ {}.get(ns.x) }}",
    "search of doubled tuples": _TUPLES + "{{ ns.x in {} }}",
    "unique of doubled tuples": _TUPLES + "{{ [ns.x] | unique | list | length }}",
    "deep tuple": "{% set ns = namespace(x=1) %}"
    + _MANY
    + "{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} | length }}",
    "loremipsum": "{{ lipsum(n=99999999) }}",
}
TEXTS = {
    "repeated string": "{{ 'a' * 10000000000 }}",
    "repeated string, times first": "{{ 10000000000 * 'a' }}",
    "repeated list": "{{ [1] * 10000000000 }}",
    "doubled list": _DOUBLED,
    "doubled string": _DOUBLED.replace("[1]", "'a'"),
    "doubled string, joined": _DOUBLED.replace("[1]", "'a'").replace("+", "~"),
    "doubled string in a block": "{% set ns = namespace(x='ab') %}{% for a in range(99) %}"
    "{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}{% endfor %}",
    "doubled string by a macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='ab') %}"
    "{% for a in range(99) %}{% set ns.x = f(ns.x) %}{% endfor %}",
    "text of loops": "{% for a in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "text of a macro": "{% macro f() %}" + _MANY + "a" * 9999 + "{% endfor %}{% endmacro %}{{ f() | length }}",
    "text of a call block": "{% macro f() %}{{ caller() | length }}{% endmacro %}{% call f() %}"
    + _MANY
    + "a" * 9999
    + "{% endfor %}{% endcall %}",
    "text of a filter block": "{% filter length %}" + _MANY + "a" * 9999 + "{% endfor %}{% endfilter %}",
    "kept lists": "{% set ns = namespace(x=0) %}" + _MANY + "{% set ns.x = [ns.x" + ", a" * 999 + "] %}{% endfor %}",
    "kept dictionaries": "{% set ns = namespace(x=0) %}" + _MANY + "{% set ns.x = {'a': ns.x, 'b': a} %}{% endfor %}",
    "kept ranges": "{% set ns = namespace(x=0) %}" + _MANY + "{% set ns.x = [ns.x, range(99999) | list] %}{% endfor %}",
    "kept namespaces": "{% set ns = namespace(x=0) %}" + _MANY + "{% set ns.x = namespace(x=ns.x) %}{% endfor %}",
    "letters": "{% set ns = namespace(x=0) %}{% set s = 'é中' * 9999 %}"
    + _MANY
    + "{% set ns.x = [ns.x, s | list] %}{% endfor %}",
    "center": "{{ 'a' | center(20000000000) }}",
    "center by a method": "{{ 'a'.center(20000000000) }}",
    "ljust": "{{ 'a'.ljust(20000000000) }}",
    "rjust": "{{ 'a'.rjust(20000000000) }}",
    "zfill": "{{ 'a'.zfill(20000000000) }}",
    "expandtabs": "{{ ('\\t' * 99999).expandtabs(99999999) }}",
    "expandtabs by name": "{{ ('\\t' * 99999).expandtabs(tabsize=99999999) }}",
    "percent": "{{ '%20000000000d' % 1 }}",
    "percent, precision": "{{ '%.2000000000f' % 1 }}",
    "percent, width as an argument": "{{ '%*d' % (2000000000, 1) }}",
    "percent of long values": _LONG + "{{ '%(a)s%(a)s%(a)s' * 999 % {'a': long} }}",
    "percent by a filter": "{{ '%20000000000d' | format(1) }}",
    "format": "{{ '{:>20000000000}'.format(1) }}",
    "format, width as an argument": "{{ '{:>{}}'.format(1, 20000000000) }}",
    "format of long values": _LONG + "{{ ('{0}{0}{0}' * 999).format(long) }}",
    "format_map": _LONG + "{{ ('{a}{a}{a}' * 999).format_map({'a': long}) }}",
    "format of doubled lists": _NESTED + "{{ '{}'.format(ns.x) }}",
    "indent": "{{ 'a\\nb' | indent(20000000000) }}",
    "indent by a text": _LONG + "{{ ('a\\n' * 9999) | indent(long) }}",
    "replace": _LONG + "{{ long | replace('a', long) }}",
    "replace of nothing": _LONG + "{{ long | replace('', long) }}",
    "replace by a method": _LONG + "{{ long.replace('a', long) }}",
    "join": _LONGER + "{{ list | join }}",
    "join with a text": _LONG + "{{ range(9999) | join(long) }}",
    "join by a method": _LONGER + "{{ ','.join(list) }}",
    "join with a text by a method": _LONG + "{{ long.join(['a'] * 9999) }}",
    "join of doubled lists": _NESTED + "{{ [ns.x] | join }}",
    "split": "{% set ns = namespace(x=0) %}" + _LONG + _MANY + "{% set ns.x = [ns.x, long.split(',')] %}{% endfor %}",
    "tojson with an indent": "{{ [[1, 2], [3]] | tojson(indent=20000000000) }}",
    "tojson with separators": _LONG + "{{ range(9999) | list | tojson(separators=(long, long)) }}",
    "tojson of doubled lists": _NESTED + "{{ ns.x | tojson }}",
    "batch": "{{ [1] | batch(20000000000, 0) | list }}",
    "batches": "{{ ([[1]] * 9999) | map('batch', 9999, 0) | map('list') | list }}",
    "slice": "{{ [1] | slice(20000000000) | list }}",
    "slices": "{{ ([[1]] * 9999) | map('slice', 9999) | map('list') | list }}",
    "nested lists": _NESTED + "{{ ns.x }}",
    "nested lists as a string": _NESTED + "{{ ns.x | string }}",
    "nested lists in upper case": _NESTED + "{{ ns.x | upper }}",
    "nested lists joined": _NESTED + "{{ 'a' ~ ns.x }}",
    "nested lists in a namespace": _NESTED + "{{ ns }}",
    "nested lists mapped": _NESTED + "{{ [ns.x] | map('string') | list }}",
    "nested lists of a dictionary": _NESTED + "{{ {'a': ns.x}.items() }}",
    "nested lists as a reason": _NESTED + "{{ raise_exception(ns.x) }}",
    "escapes": "{{ (('<' * 999999) | escape) + ('<' * 999999) }}",
    "slicing": _MANY + "{{ ('a' * 99999)[1:] | length }}{% endfor %}",
    "case": _LONGER + "{{ list | sort | length }}",
}


@pytest.fixture
def small_budget(monkeypatch):
    monkeypatch.setattr(render_budget, "MAX_BYTES", 2**20)
    monkeypatch.setattr(render_budget, "MAX_STEPS", 60_000)
    monkeypatch.setattr(render_budget, "_STEPS_PER_CLOCK_CHECK", 5_000)
    monkeypatch.setattr(render_budget, "MAX_CPU_S", 0.5)


@pytest.mark.parametrize("source", [*LOOPS.values(), *TEXTS.values()], ids=[*LOOPS, *TEXTS])
def test_endless_template_is_refused_within_its_budget(source, small_budget):
    template = ChatTemplate(source, ByteTokenizer())
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match="does not accept these messages"):
            template.render([{"role": "user", "content": "x"}])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * render_budget.MAX_BYTES, "bytes"


_AS_SHIPPED = """
import resource, sys, time
from inferd.errors import InvalidRequestError
from inferd.chat.template import ChatTemplate
from inferd.chat.sandbox.budget import MAX_BYTES, MAX_CPU_S
from tests.fakes import ByteTokenizer
from tests.chat.test_bounded_jinja import LOOPS, TEXTS

resource.setrlimit(resource.RLIMIT_AS, (12 * MAX_BYTES, resource.RLIM_INFINITY))
for name, source in {**LOOPS, **TEXTS}.items():
    began = time.thread_time()
    try:
        ChatTemplate(source, ByteTokenizer()).render([{"role": "user", "content": "x"}])
    except InvalidRequestError as error:
        assert not isinstance(error.__cause__, MemoryError), name
    assert time.thread_time() - began < 3 * MAX_CPU_S, name
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 4 * MAX_BYTES
"""


@pytest.mark.slow
def test_endless_templates_end_within_the_default_budget():
    subprocess.run([sys.executable, "-c", _AS_SHIPPED], check=True, cwd=Path(__file__).parents[2])


def test_slow_rendering_is_refused_by_its_threads_processor_time(monkeypatch):
    monkeypatch.setattr(render_budget, "MAX_CPU_S", 0.05)
    with pytest.raises(InvalidRequestError, match="takes too many steps"):
        ChatTemplate(_MANY + _MANY + "{% endfor %}{% endfor %}", ByteTokenizer()).render([])


def test_long_message_of_raise_exception_is_cut():
    with pytest.raises(InvalidRequestError) as caught:
        ChatTemplate("{{ raise_exception('a' * 99999) }}", ByteTokenizer()).render([])
    assert len(caught.value.message) < 2_000


@pytest.mark.parametrize(
    "error", [MemoryError(), AssertionError("x"), RecursionError("x"), RuntimeError("x"), UnicodeError("x")]
)
def test_any_exception_of_a_template_is_an_invalid_request_error(error):
    def clock():
        raise error

    with pytest.raises(InvalidRequestError, match=r"does not accept these messages: (x|MemoryError)"):
        ChatTemplate("{{ strftime_now('%Y') }}", ByteTokenizer(), clock=clock).render([])


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}"])
def test_template_cannot_include_another(source):
    with pytest.raises(InvalidRequestError, match="no loader"):
        ChatTemplate(source, ByteTokenizer()).render([])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ " + "[" * 5000 + "]" * 5000 + " }}", "cannot be compiled"),
        ("{{ " + "-" * 5000 + "1 }}", "cannot be compiled"),
        ("{{ a" + " + a" * 5000 + " }}", "cannot be compiled"),
        ("{% if a %}" * 500 + "{% endif %}" * 500, "cannot be compiled"),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, "cannot be compiled"),
        ("a" * (2**20 + 1), "at most 1048576 are allowed"),
        ("{{a}}" * 25_000, "has more than 20000 nodes"),
        ("a\n{% set inferd_budget = none %}", "line 2: names must not begin with 'inferd_'"),
        ("{% macro f(inferd_x) %}{% endmacro %}", "line 1: names must not begin with 'inferd_'"),
        ("{{ [1] | inferd_loop(0) }}", "line 1: No filter named 'inferd_loop'"),
        ("{{ 'a' | wordwrap(1, wrapstring='a' * 999) }}", "line 1: No filter named 'wordwrap'"),
    ],
)
def test_template_that_does_not_compile_is_a_config_error(source, words):
    with pytest.raises(ConfigError, match=r"^t\.jinja: ") as caught:
        ChatTemplate(source, ByteTokenizer(), name="t.jinja")
    assert words in str(caught.value)


_TABLE = "[{'a': 2, 'b': 'y'}, {'a': 1, 'b': 'x'}]"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for a in [1, 2, 3] %}{{ a }}{% if not loop.last %},{% endif %}{% endfor %}", "1,2,3"),
        ("{% for a in [1, 2] %}{{ loop.index }}/{{ loop.length }} {{ loop.previtem }} {% endfor %}", "1/2  2/2 1 "),
        ("{% for a in missing %}{{ a }}{% else %}none{% endfor %}", "none"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ '=' ~ v }}{% endfor %}", "a=1"),
        ("{% for k, v in {'a': 1} | items %}{{ k ~ '=' ~ v }}{% endfor %}", "a=1"),
        ("{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "123"),
        ("{{ 2 * 3 + 4 }} {{ 'a' * 3 }} {{ 7 % 4 }} {{ '%s!' % 'x' }} {{ 7 // 2 }} {{ 3 - 5 }}", "10 aaa 3 x! 3 -2"),
        ("{% for a in 'abc' if a != 'b' %}{{ a }}{% endfor %}", "ac"),
        ("{{ [1, 2, 3][1:] }}{{ 'abc'[::-1] }}{{ 'abc'[:2] }}", "[2, 3]cbaab"),
        ("{{ '%(a)s %5.1f' % {'a': 1} if false else '%5.1f|%-3d|%%' % (2, 3) }}", "  2.0|3  |%"),
        ("{{ '{} {a:>3}|{0!r}'.replace('{}', '{0}').format('x', a=1) }}{{ '{a}'.format_map({'a': 2}) }}", "x   1|'x'2"),
        ("{{ '%s-%s' | format(1, 2) }}{{ 'a\nb' | indent(2, true) }}{{ 'a' | center(3) }}", "1-2  a\n  b a "),
        (
            "{{ 'a,b'.split(',')[-1] }}{{ ' a '.strip() }}{{ 'ab'.startswith('a') }}{{ '-'.join(['a', 'b']) }}",
            "baTruea-b",
        ),
        ("{{ 'a\tb'.expandtabs(2) }}{{ 'a'.ljust(2) }}{{ '1'.zfill(2) }}{{ 'aXa'.replace('a', 'b') }}", "a ba 01bXb"),
        ("{{ ['b', 'A'] | sort | join(',') }}{{ [1, 1] | unique | list }}{{ [3, 4] | sum }}", "A,b[1]7"),
        (f"{{{{ {_TABLE} | map(attribute='b') | join }}}}{{{{ {_TABLE} | sum('a') }}}}", "yx3"),
        (f"{{{{ ({_TABLE} | sort(attribute='a') | first).b }}}}{{{{ {_TABLE} | join(',', 'b') }}}}", "xy,x"),
        (f"{{{{ {_TABLE} | selectattr('a', 'equalto', 1) | list | length }}}}{{{{ {_TABLE} | length }}}}", "12"),
        (f"{{% for g in {_TABLE} | groupby('a') %}}{{{{ g.grouper }}}}{{{{ g.list | length }}}}{{% endfor %}}", "1121"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}", "[[1, 2], [3, 0]][[1, 2], [3]]"),
        (
            "{{ {'b': 1, 'a': 2} | dictsort }}{{ [1, 2] | reverse | list }}{{ 'ab' | reverse }}",
            "[('a', 2), ('b', 1)][2, 1]ba",
        ),
        (
            "{{ ['a', 1] | select('string') | list }}{{ [0, 1] | reject | list }}{{ ['a'] | map('upper') | list }}",
            "['a'][0]['A']",
        ),
        (
            "{{ 'x' in 'axb' }}{{ 'a' in {'a': 1} }}{{ 'a' not in ['b'] }}{{ 1 < 2 < 3 }}{{ [1] == [1] }}",
            "TrueTrueTrueTrueTrue",
        ),
        (
            "{{ 2.567 | round(1) }}{{ 2.5 | round | int }}{{ '7' | int + 1 }}{{ -3 | abs }}{{ 'a b' | title }}",
            "2.6283A B",
        ),
        ("{% set ns = namespace(a=1) %}{% set ns.a = ns.a + 1 %}{{ ns.a }}{{ dict(a=1).get('b', 3) }}", "23"),
        ("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() }}{% endmacro %}{% call f(1) %}c{% endcall %}", "12c"),
        (
            "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(',') %}{{ j() }}{{ j() }}",
            "ab,",
        ),
        ("{% for a in [1, 1] %}{{ loop.cycle('x', 'y') }}{{ loop.changed(a) }}{% endfor %}", "xTrueyFalse"),
        ("{{ '<' | escape }}{{ '<' | safe }}{{ none | default('d', true) }}{{ ' a ' | trim }}", "&lt;<da"),
        (
            "{% set x %}a{{ 1 }}{% endset %}{{ x }}{% filter upper %}b{% endfilter %}{% block c %}d{% endblock %}",
            "a1Bd",
        ),
    ],
)
def test_bounded_rendering_equals_jinjas(source, text):
    assert jinja2.Environment().from_string(source).render() == text
    assert BoundedTemplate(BoundedEnvironment(), source).render({}) == text


@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "openai-gpt-oss-120b", "meta-llama-Llama-3.1-8B-Instruct"])
def test_largest_conversations_render_within_the_budget(name):
    messages = [{"role": role, "content": "é" * 60} for _ in range(1_500) for role in ("user", "assistant")]
    template_of(name).render(messages)
    template_of(name).render([{"role": "user", "content": "é" * 4_000_000}])
