"""Every error that inferd raises on purpose.

    InferdError                    a fault that a person can correct; str(error) says what and how
    ├── ConfigError                models.toml, an option or the data folder is wrong (exit status 2)
    ├── OperationError             an operator's command cannot be carried out (exit status 1)
    │   ├── NotFoundError          no such team, project, user, key, grant
    │   ├── ConflictError          the object exists already
    │   │   └── IdempotencyConflictError   an idempotency key was used with another body
    │   └── InvalidValueError      an amount, name or date is invalid
    ├── RequestError               a caller's request is refused; `code` is OpenAI's, one per cause
    │   ├── InvalidRequestError            400, `param` names the field
    │   │   ├── ContextLengthError         400 context_length_exceeded
    │   │   ├── RequestTooLargeError       413 request_too_large
    │   │   ├── RequestTimeoutError        408 request_timeout
    │   │   └── MisdirectedRequestError    421 unknown_host
    │   ├── AuthenticationError            401
    │   ├── InsufficientCreditError        402
    │   ├── PermissionDeniedError          403
    │   ├── ModelNotFoundError             404
    │   ├── ClientGoneError                499, the client has closed the connection
    │   ├── RateLimitError                 429, `retry_after_s`
    │   │   └── TooManyFailuresError       429 too_many_wrong_keys
    │   ├── UnsupportedOperationError      501 not_implemented
    │   └── OverloadedError                503, `retry_after_s`
    ├── LedgerDamagedError         the ledger's file is broken (exit status 1, 500)
    ├── SealedDataError            stored data cannot be opened: it was changed, or sealed with another key
    └── GenerationError            the engine failed under an accepted request (500); never billed

A programmer's fault is an `assert`, not an error of this tree. `server/errors.py` alone maps the tree to HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from inferd.plans import Unit


class InferdError(Exception):
    """Base of the tree; the message is written for the person that can correct the fault."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(InferdError):
    """Configuration is invalid. Message form: `FILE: [table] key: what is wrong`."""


class OperationError(InferdError):
    """An operator's command cannot be carried out; nothing was changed."""


class NotFoundError(OperationError):
    """The named team, project, user, key or grant does not exist.

    Attributes:
        noun: what was looked up, such as `team`; None: the message says all.
        names: the names that it was looked up by, the team first.
    """

    def __init__(self, message: str, *, noun: str | None = None, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.noun = noun
        self.names = names


class ConflictError(OperationError):
    """The object exists already."""


class IdempotencyConflictError(ConflictError):
    """An idempotency key was used with another body."""


class InvalidValueError(OperationError):
    """An amount, a name or a date is invalid."""


class RequestError(InferdError):
    """A caller's request is refused, unbilled.

    Attributes:
        code: OpenAI's error code, one per cause.
        param: the request field at fault, or None.
        retry_after_s: seconds after which the same request can succeed; None if waiting does not help.
    """

    default_code: ClassVar[str | None] = None

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code
        self.param = param
        self.retry_after_s = retry_after_s


class InvalidRequestError(RequestError):
    """The body, a header or the path is wrong."""


class ContextLengthError(InvalidRequestError):
    """The prompt leaves no room in the context."""

    default_code = "context_length_exceeded"


class RequestTooLargeError(InvalidRequestError):
    """The body is larger than this server reads."""

    default_code = "request_too_large"


class RequestTimeoutError(InvalidRequestError):
    """The client sent its request too slowly."""

    default_code = "request_timeout"


class MisdirectedRequestError(InvalidRequestError):
    """The Host header names another machine."""

    default_code = "unknown_host"


class AuthenticationError(RequestError):
    """The key is missing, malformed, unknown, revoked or expired."""

    default_code = "invalid_api_key"


class InsufficientCreditError(RequestError):
    """Credit or a cap cannot cover the request's worst case.

    Attributes:
        missing: if open holds alone are the cause, the amount of them that must be released first, by scope and unit,
            such as (`key:ID`, `tokens`); of `usd` in nano-USD.
    """

    default_code = "credit_balance_exhausted"
    missing: Mapping[tuple[str, Unit], int] = MappingProxyType({})

    @property
    def is_for_good(self) -> bool:
        """True if waiting for open holds does not help: credit is too low, or a cap is used up."""
        return self.retry_after_s is None


class PermissionDeniedError(RequestError):
    """The key is valid, but does not permit this."""

    default_code = "permission_denied"


class ModelNotFoundError(RequestError):
    """No deployment of that name is visible to the caller."""

    default_code = "model_not_found"


class ClientGoneError(RequestError):
    """The client closed the connection, or its batch was stopped, before the request was admitted."""

    default_code = "client_gone"


class RateLimitError(RequestError):
    """The caller has reached a rate limit.

    Attributes:
        limits: the limited quantity, which is OpenAI's `type` of the error.
    """

    default_code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        limits: Literal["requests", "tokens"] = "requests",
    ) -> None:
        super().__init__(message, code=code, param=param, retry_after_s=retry_after_s)
        self.limits = limits


class TooManyFailuresError(RateLimitError):
    """The caller's address has sent too many missing or wrong keys."""

    default_code = "too_many_wrong_keys"


class UnsupportedOperationError(RequestError):
    """The operation belongs to an API that is spoken here, but not to this server."""

    default_code = "not_implemented"


class OverloadedError(RequestError):
    """The server is full, starting or stopping."""

    default_code = "server_overloaded"


class LedgerDamagedError(InferdError):
    """SQLite cannot read the ledger's file; restore a backup."""


class SealedDataError(InferdError):
    """Stored data cannot be opened: it was changed, moved, or sealed with another key."""


class GenerationError(InferdError):
    """The engine failed during an accepted request; the hold is voided."""
