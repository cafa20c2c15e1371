"""The error tree. It knows no HTTP: `api/http/problems.py` holds the one table from these classes to statuses.

WatchbillError
├── Invalid            what the caller sent cannot be understood
│   └── OAuthError     a token request is refused, with a code of OAuth
├── Unauthenticated    who the caller is cannot be established
├── Forbidden          the caller is known and may do this nowhere
├── NotFound           there is no such thing within the caller's scope
├── Conflict           the request does not fit the present state (a gap in a sequence)
├── Superseded         another holder took over (an agent's stream)
├── TooLarge           more than the published limit
├── TooMany            more often than the published limit
├── Unacceptable       none of the formats asked for is offered
└── Unavailable        a part we depend on does not answer; trying again may help
"""


class WatchbillError(Exception):
    """Base of all errors that carry a message for people.

    `details` is one more sentence, or none; `retry_after_seconds` is set only where a retry can help.
    """

    def __init__(
        self, message: str, *, details: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after_seconds = retry_after_seconds


class Invalid(WatchbillError): ...


class OAuthError(Invalid):
    """A token request that is refused with a code of RFC 6749 or RFC 8628, such as `invalid_grant`."""

    def __init__(self, code: str, message: str, *, details: str | None = None) -> None:
        super().__init__(message, details=details)
        self.code = code


class Unauthenticated(WatchbillError): ...


class Forbidden(WatchbillError): ...


class NotFound(WatchbillError): ...


class Conflict(WatchbillError): ...


class Superseded(WatchbillError): ...


class TooLarge(WatchbillError): ...


class TooMany(WatchbillError): ...


class Unacceptable(WatchbillError): ...


class Unavailable(WatchbillError): ...
