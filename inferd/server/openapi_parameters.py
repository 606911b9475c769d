"""The query parameters that /openapi.json describes. Handlers read them with `Query`, which refuses any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from inferd.ledger.reports.buckets import GroupField
from inferd.server.admin import paging

Parameters = Mapping[str, Mapping[str, Any]]
"""JSON schemas by name."""

REQUIRED = ("start_time",)
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer", "minimum": 0}
_TEAM = "/admin/teams/{team}"


def page(limit: int, most: int, after: Mapping[str, Any] = _TEXT) -> dict[str, Mapping[str, Any]]:
    return {
        "after": {**after, "description": "the last id of the page before"},
        "limit": {"type": "integer", "minimum": 1, "maximum": most, "default": limit},
    }


def _one_of(values: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _usage(widths: Sequence[str], groups: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    return {
        "start_time": _COUNT,
        "end_time": _COUNT,
        "bucket_width": _one_of(widths),
        "group_by": {"type": "array", "items": _one_of(groups)},
        "limit": _COUNT,
        "page": _TEXT,
        "project_ids": _TEXTS,
        "api_key_ids": _TEXTS,
    }


_PAGE = page(paging.DEFAULT_LIMIT, paging.MAX_LIMIT)
_NUMBERED_PAGE = page(paging.DEFAULT_LIMIT, paging.MAX_LIMIT, _COUNT)

MODELS: Parameters = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "after_id": _TEXT,
    "before_id": _TEXT,
}
QUERIES: Mapping[str, Parameters] = {
    "/v1/organization/usage/completions": {
        **_usage(("1m", "1h", "1d"), [name for name in get_args(GroupField) if name != "line_item"]),
        "user_ids": _TEXTS,
        "models": _TEXTS,
        "batch": _one_of(("true", "false")),
    },
    "/v1/organization/costs": _usage(("1d",), ("project_id", "line_item", "api_key_id")),
    "/admin/teams": _PAGE,
    _TEAM: {"limit": _PAGE["limit"]},
    f"{_TEAM}/projects": _PAGE,
    f"{_TEAM}/users": _PAGE,
    f"{_TEAM}/keys": _PAGE,
    f"{_TEAM}/budgets": _PAGE,
    f"{_TEAM}/credits/grants": _NUMBERED_PAGE,
    f"{_TEAM}/statements": _PAGE,
    f"{_TEAM}/alerts": _NUMBERED_PAGE,
    "/admin/log": {
        "team": _TEXT,
        "actor": _TEXT,
        "action": _TEXT,
        "since": _TEXT,
        "until": _TEXT,
        "before": _COUNT,
        "limit": _COUNT,
    },
}
"""Of GET routes that answer with what has no type of its own, by path."""
