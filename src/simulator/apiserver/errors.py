"""The API's error answers: Status bodies with the texts and reasons of the protocol."""

from typing import Any

import msgspec

from simulator.resources import ResourceType

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class ApiError(Exception):
    """An answer other than 200, ready to be sent."""

    def __init__(
        self, code: int, body: bytes, content_type: str = JSON, retry_after: int | None = None
    ) -> None:
        super().__init__(code, body)
        self.code = code
        self.body = body
        self.content_type = content_type
        self.retry_after = retry_after


def status(
    code: int,
    message: str,
    reason: str | None = None,
    details: dict[str, Any] | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata or {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    body["code"] = code
    return msgspec.json.encode(body)


def api_error(
    code: int, message: str, reason: str | None = None, details: dict[str, Any] | None = None
) -> ApiError:
    return ApiError(code, status(code, message, reason, details) + b"\n")


def unauthorized() -> ApiError:
    return api_error(401, "Unauthorized", "Unauthorized")


def forbidden_path(user: str, path: str) -> ApiError:
    message = f'forbidden: User "{user}" cannot get path "{path}"'
    return api_error(403, message, "Forbidden", {})


def forbidden(
    *, user: str, verb: str, group: str, plural: str, namespace: str | None, name: str | None
) -> ApiError:
    full_name = f"{plural}.{group}" if group else plural
    what = f'{full_name} "{name}"' if name else full_name
    scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    details = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = plural
    message = (
        f'{what} is forbidden: User "{user}" cannot {verb} resource "{plural}" '
        f'in API group "{group}" {scope}'
    )
    return api_error(403, message, "Forbidden", details)


def not_found(resource: ResourceType, name: str) -> ApiError:
    details = {"name": name, "kind": resource.plural}
    if resource.group:
        details = {"name": name, "group": resource.group, "kind": resource.plural}
    return api_error(404, f'{resource.full_name} "{name}" not found', "NotFound", details)


def no_such_kind() -> ApiError:
    message = "the server could not find the requested resource"
    return api_error(404, message, "NotFound", {})


def no_such_page() -> ApiError:
    return ApiError(404, b"404 page not found\n", TEXT)


def not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return api_error(405, message, "MethodNotAllowed", {})


def not_acceptable(message: str) -> ApiError:
    return api_error(406, message, "NotAcceptable")


def too_many() -> ApiError:
    """Overload is answered before anything is understood, hence in plain text."""
    return ApiError(429, b"Too many requests, please try again later.\n", TEXT, retry_after=1)


def initializing() -> ApiError:
    """What a kind says in the first moment after it was installed."""
    details = {"retryAfterSeconds": 1}
    body = status(429, "storage is (re)initializing", "TooManyRequests", details)
    return ApiError(429, body + b"\n", retry_after=1)


def unavailable() -> ApiError:
    return api_error(
        503, "the server is currently unable to handle the request", "ServiceUnavailable"
    )


def invalid_options(message: str, reason: str = "FieldValueForbidden") -> ApiError:
    field = "resourceVersionMatch"
    cause = {"reason": reason, "message": message, "field": field}
    details = {"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause]}
    text = f'ListOptions.meta.k8s.io "" is invalid: {field}: {message}'
    return api_error(422, text, "Invalid", details)


def future_revision(revision: int, current: int) -> bytes:
    details = {
        "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"},
        ],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {revision}, current: {current}"
    return status(504, message, "Timeout", details)


def expired_list() -> ApiError:
    message = "The resourceVersion for the provided list is too old."
    return api_error(410, message, "Expired")


def expired_continue(token: str) -> ApiError:
    """Carries a token that goes on behind the last key, at a newer revision."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter, or use the continue token in "
        "this response to retrieve the remainder of the results. Continuing with the provided "
        "token results in an inconsistent list - objects that were created, modified, or deleted "
        "between the time the first chunk was returned and now may show up in the list."
    )
    return ApiError(410, status(410, message, "Expired", metadata={"continue": token}) + b"\n")


def expired_watch(revision: int, floor: int, *, is_cached: bool) -> bytes:
    """The object of the ERROR event; the watch itself was answered with 200."""
    message = (
        f"too old resource version: {revision} ({floor})"
        if is_cached
        else "The resourceVersion for the provided watch is too old."
    )
    return status(410, message, "Expired")
