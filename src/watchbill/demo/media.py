"""Accept: which of the offered forms an answer takes. Offered are JSON objects and their bare metadata."""

from enum import Enum

from watchbill.demo import answers


class Form(Enum):
    WHOLE = "whole"
    PARTIAL = "partial"


_AS = {"object": "PartialObjectMetadata", "watch": "PartialObjectMetadata"}
_ACCEPTED = "application/json"
_NONE_OFFERED = (
    "406: Not Acceptable\n\nAvailable representations: application/json, "
    "application/json;stream=watch"
)
_NO_SUCH_FORM = f"only the following media types are accepted: {_ACCEPTED}"


def negotiate(accept: str, kind: str, asked: str) -> Form:
    """`asked` is object, list or watch. Raises answers.Refused (406)."""
    ranges = [_parse(item) for item in (accept or "*/*").split(",")]
    has_json = False
    for media_type, parameters in ranges:
        if media_type not in (_ACCEPTED, "*/*", "application/*"):
            continue
        has_json = True
        form = _form(parameters, kind, asked)
        if form is not None:
            return form
    raise answers.not_acceptable(_NO_SUCH_FORM if has_json else _NONE_OFFERED)


def _form(parameters: dict[str, str], kind: str, asked: str) -> Form | None:
    wanted = parameters.get("as")
    if wanted is None:
        return Form.WHOLE
    if (parameters.get("g"), parameters.get("v")) != ("meta.k8s.io", "v1"):
        return None
    if asked == "list" and wanted == "PartialObjectMetadata":
        raise answers.not_acceptable(
            f"you requested {wanted}, but the requested object is a list ({kind}List)"
        )
    return Form.PARTIAL if wanted == _AS.get(asked, "PartialObjectMetadataList") else None


def _parse(item: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip() for part in item.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return media_type, {name: value for name, _, value in pairs}
