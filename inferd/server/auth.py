"""Authentication: the key of the Authorization header, or of x-api-key, looked up in the ledger at every request; and
the user that a request with a trusted key names by header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.requests import Request

from inferd.errors import (
    AuthenticationError,
    InvalidRequestError,
    InvalidValueError,
    PermissionDeniedError,
    TooManyFailuresError,
)
from inferd.instants import wall_clock_ms
from inferd.ledger.identity import Authenticator, Caller, Scope, user_name
from inferd.server.keyless import KeylessAccess
from inferd.server.middleware.client_address import site_of
from inferd.server.services import services_of

PROJECT_HEADER = "openai-project"
KEY_HEADER = "x-api-key"
"""Anthropic's header for keys."""
PERCENT_ENCODED = ("inferd-user", "x-openwebui-user-name")
"""Headers whose values are percent-encoded. Open WebUI encodes names, and sends e-mail addresses as they are: decoding
those, too, would make one user of `a+b@example.org` and of a stranger who signs up as `a%2Bb@example.org`."""


def authenticate_request(request: Request, authenticator: Authenticator, *, may_lack_key: bool = False) -> Caller:
    """Return the caller of a request.

    Args:
        may_lack_key: whether the request may act as the key of `[server] keyless`: it reads nothing that was stored,
            and changes nothing.

    Raises:
        AuthenticationError: the key is missing or invalid.
        TooManyFailuresError: the key is missing or invalid, as in too many other requests from the same address.
        PermissionDeniedError: the project is not the key's, or the key, user, project or team is suspended.
        InvalidRequestError: a trusted key names a user that cannot be.
    """
    try:
        caller = _authenticated(request, authenticator, may_lack_key=may_lack_key)
        request.state.caller = caller  # for the refusal log
        if caller.is_trusted:
            name = named_user(request.headers, request.app.state.user_headers)
            if name is not None:
                request.state.caller = replace(caller, user=name)
                caller = request.state.caller = authenticator.name_user(caller, name)
        return caller
    except AuthenticationError as error:
        site = site_of(request.state.client_address)
        wait_s = services_of(request).unauthorized.fail(site)
        if wait_s is None:
            raise
        raise TooManyFailuresError(
            f"Too many requests without a valid API key arrived from your address ({site}); send a valid key, which is "
            f"served at once, or try again in {math.ceil(wait_s)} s.",
            retry_after_s=wait_s,
        ) from error


def _authenticated(request: Request, authenticator: Authenticator, *, may_lack_key: bool) -> Caller:
    project = request.headers.get(PROJECT_HEADER, "").strip() or None
    key = _key(request)
    keyless: KeylessAccess | None = request.app.state.keyless
    if key is not None:
        return authenticator.authenticate(key, wall_clock_ms(), project)
    if keyless is None or not may_lack_key:
        raise AuthenticationError(
            "You didn't provide an API key. Put it in the Authorization header, as in "
            f"`Authorization: Bearer sk-inferd-...`, or in the header {KEY_HEADER}."
        )
    keyless.check(request)
    return authenticator.stand_in(keyless.key_id, wall_clock_ms(), project)


def _key(request: Request) -> str | None:
    """Return the key of a request, None if it has none. An Authorization of another scheme may be for a proxy, so
    x-api-key is read then. Raises AuthenticationError for such an Authorization alone."""
    authorization = request.headers.get("authorization", "").strip()
    scheme, _, token = authorization.partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else request.headers.get(KEY_HEADER, "").strip()
    if key:
        return key
    if authorization and scheme.lower() != "bearer":
        raise AuthenticationError(
            "The Authorization header must begin with the word Bearer, as in `Authorization: Bearer sk-inferd-...`."
        )
    return None


def named_user(headers: Headers, names: Sequence[str]) -> str | None:
    """Return the user that the headers name, as the ledger writes the name; None if they name none.

    Args:
        names: of the headers; the first one that is not empty counts.

    Raises:
        InvalidRequestError: no user can have that name, or the header came twice with different values.
    """
    for name in names:
        values = {value.strip() for value in headers.getlist(name)} - {""}
        if len(values) > 1:
            raise _wrong_header(name, f"it came {len(values)} times with different values; send it once")
        if values:
            return _read_user(name, values.pop())
    return None


def _read_user(name: str, value: str) -> str:
    encoded = value.encode("latin-1")  # as Starlette decoded it
    try:
        return user_name((unquote_to_bytes(encoded) if name in PERCENT_ENCODED else encoded).decode().strip())
    except UnicodeDecodeError as error:
        raise _wrong_header(name, "its value is no UTF-8") from error
    except InvalidValueError as error:
        raise _wrong_header(name, str(error)) from error


def _wrong_header(name: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"The header {name} names no user: {why}.", param=name, code="invalid_value")


def has_key(request: Request) -> bool:
    """Return whether a request that was authenticated brought a key of its own."""
    return _key(request) is not None


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise PermissionDeniedError unless the caller's key has the scope."""
    if not caller.has_scope(scope):
        raise PermissionDeniedError(
            f"This API key lacks the scope `{scope}`; it has {', '.join(caller.scopes)}. Use a key with `{scope}`.",
            code="insufficient_scope",
        )


def require_model(caller: Caller, model: str) -> None:
    """Raise PermissionDeniedError unless the caller's key may use the model."""
    if not caller.may_use(model):
        raise PermissionDeniedError(
            f"This API key may not use the model `{model}`; GET /v1/models lists the models that it may use.",
            code="model_not_allowed",
            param="model",
        )
