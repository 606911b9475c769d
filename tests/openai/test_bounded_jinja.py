"""Templates that would take a thread or all memory."""

from __future__ import annotations

import jinja2
import pytest

from inferd.errors import InvalidRequestError
from inferd.openai import bounded_jinja
from inferd.openai.bounded_jinja import BoundedEnvironment, render_bounded
from inferd.openai.chat_template import ChatTemplate
from tests.fakes import ByteTokenizer


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{% for a in range(99999) %}{% endfor %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [1] * 10000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set ns = namespace(x='ab') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'a' * 1000000 }}{% endfor %}",
    ],
)
def test_a_template_without_end_refuses_the_messages(source, monkeypatch):
    monkeypatch.setattr(bounded_jinja, "MAX_CHARACTERS", 2**20)
    monkeypatch.setattr(bounded_jinja, "MAX_ITERATIONS", 100_000)
    template = ChatTemplate(source, ByteTokenizer())
    with pytest.raises(InvalidRequestError, match="does not accept these messages"):
        template.render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for a in [1, 2, 3] %}{{ a }}{% if not loop.last %},{% endif %}{% endfor %}", "1,2,3"),
        ("{% for a in [1, 2] %}{{ loop.index }}/{{ loop.length }} {{ loop.previtem }} {% endfor %}", "1/2  2/2 1 "),
        ("{% for a in missing %}{{ a }}{% else %}none{% endfor %}", "none"),
        ("{% for k, v in {'a': 1}.items() %}{{ k ~ '=' ~ v }}{% endfor %}", "a=1"),
        ("{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "123"),
        ("{{ 2 * 3 + 4 }} {{ 'a' * 3 }} {{ 7 % 4 }} {{ '%s!' % 'x' }}", "10 aaa 3 x!"),
        ("{% for a in 'abc' if a != 'b' %}{{ a }}{% endfor %}", "ac"),
    ],
)
def test_what_templates_do_is_as_jinja_has_it(source, text):
    assert jinja2.Environment().from_string(source).render() == text
    assert render_bounded(BoundedEnvironment().from_string(source), {}) == text
