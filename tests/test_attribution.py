"""Tests of the attribution of requests."""

import pytest

from inferd.attribution import Attribution
from inferd.ledger.storage.rows import FORMATS


@pytest.mark.parametrize("table", ["holds", "usage", "refunds", "usage_daily"])
def test_attribution_fields_are_columns_in_the_order_of_the_table(table):
    columns, fields = FORMATS[table].fixed, Attribution.__struct_fields__
    first = columns.index("team")
    assert columns[first : first + len(fields)] == fields


def test_attribution_subjects_begin_with_the_team():
    attribution = Attribution("acme", "web", "ada", "k1", "local/m", "default")
    assert attribution.subjects == ["team:acme", "project:acme/web", "key:k1", "user:acme/ada"]
