"""Every error that inferd raises on purpose.

    InferdError                    something a person can mend; str(error) says what and how
    ├── ConfigError                models.toml, an option or the data folder is wrong (exit status 2)
    ├── OperationError             an operator's command cannot be done (exit status 1)
    │   ├── NotFoundError          no such team, project, user, key, grant
    │   ├── ConflictError          it exists already
    │   │   └── IdempotencyConflictError   an idempotency key was used with another body
    │   └── InvalidValueError      an amount, name or date that makes no sense
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
    │   ├── ClientGoneError                499, of a client that has hung up
    │   ├── RateLimitError                 429, `retry_after_s`
    │   │   └── TooManyFailuresError       429 too_many_wrong_keys
    │   └── OverloadedError                503, `retry_after_s`
    ├── LedgerDamagedError         the ledger's file is broken (exit status 1, 500)
    └── GenerationError            the engine failed under an accepted request (500); never billed

A programmer's fault is an `assert`, not one of these. `server/errors.py` is the one place that maps them to HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal


class InferdError(Exception):
    """Base of all; the message is written for the person who can mend it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(InferdError):
    """Configuration that cannot be used. Message form: `FILE: [table] key: what is wrong`."""


class OperationError(InferdError):
    """An operator's command that cannot be carried out; nothing was changed."""


class NotFoundError(OperationError):
    """The named team, project, user, key or grant does not exist."""


class ConflictError(OperationError):
    """The thing exists already."""


class IdempotencyConflictError(ConflictError):
    """An idempotency key came back with another body."""


class InvalidValueError(OperationError):
    """An amount, a name or a date that cannot be accepted."""


class RequestError(InferdError):
    """A caller's request that is refused. Nothing is billed.

    Attributes:
        code: OpenAI's error code, one per cause.
        param: the request field at fault, or None.
        retry_after_s: seconds after which the same request can succeed, or None if it never will by waiting.
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
    """The body has more bytes than this server reads."""

    default_code = "request_too_large"


class RequestTimeoutError(InvalidRequestError):
    """The client was too slow in sending its request."""

    default_code = "request_timeout"


class MisdirectedRequestError(InvalidRequestError):
    """The Host header names a machine that this one is not."""

    default_code = "unknown_host"


class AuthenticationError(RequestError):
    """No key, a malformed one, or one that is unknown, revoked or expired."""

    default_code = "invalid_api_key"


class InsufficientCreditError(RequestError):
    """Credit or a cap cannot cover the request's worst case.

    Attributes:
        held_nanousd: where open holds alone are the cause: how much of them must come back first, by scope, such as
            `team:acme` or `key:ID`.
    """

    default_code = "credit_balance_exhausted"
    held_nanousd: Mapping[str, int] = MappingProxyType({})

    @property
    def is_for_good(self) -> bool:
        """Whether waiting for open holds does not help: there is too little credit, or a cap is used up."""
        return self.retry_after_s is None


class PermissionDeniedError(RequestError):
    """The key is good, but not for this."""

    default_code = "permission_denied"


class ModelNotFoundError(RequestError):
    """No deployment of that name is visible to the caller."""

    default_code = "model_not_found"


class ClientGoneError(RequestError):
    """The client hung up, or its batch was stopped, before the request was admitted."""

    default_code = "client_gone"


class RateLimitError(RequestError):
    """The caller goes too fast.

    Attributes:
        limits: what there was too much of, OpenAI's `type` of the error.
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
    """The caller's address came too often with a missing or wrong key."""

    default_code = "too_many_wrong_keys"


class OverloadedError(RequestError):
    """The server is full, starting or stopping; the caller did nothing wrong."""

    default_code = "server_overloaded"


class LedgerDamagedError(InferdError):
    """SQLite cannot make sense of the ledger's file; only a backup helps."""


class GenerationError(InferdError):
    """The engine failed while it worked on an accepted request; the hold is voided."""
