"""A workload's texts as they are presented: redacted first and cut afterwards."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.derivation.redact import (
    redact_arguments,
    redact_image,
    redact_text,
    redact_variables,
)
from watchbill.kinds.objects.json_access import instant, text
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import Template
from watchbill.workload import Condition, Endpoint, PendingReason, PendingSchedulingMessage

MESSAGE_LENGTH = 1_024
NAME_LENGTH = 253
VALUE_LENGTH = 2_048
COMMAND_LENGTH = 8_192
ALL_VARIABLES_LENGTH = 16_384
MAX_IMAGES = 50
_IMAGE_LENGTH = 1_024


class PresentedTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """`truncated` names the members that did not fit."""

    command: str | None
    arguments: str | None
    variables: dict[str, str]
    truncated: tuple[str, ...]


def sanitized_message(message: str | None, mode: Redaction) -> str | None:
    """One sentence for people: one line, no secrets, at most 1,024 characters."""
    if not message:
        return None
    # Twice the length is looked at, so that a secret at the cut is whole when it is looked for.
    plain = " ".join(message[: 2 * MESSAGE_LENGTH].split())
    return bounded(redact_text(_printable(plain), mode), MESSAGE_LENGTH) or None


def bounded(value: str, length: int) -> str:
    return value if len(value) <= length else value[: length - 1] + "…"


def _printable(value: str) -> str:
    """Without NUL and lone surrogates, which PostgreSQL does not store."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def printable(value: str, length: int = NAME_LENGTH) -> str:
    """A name as it is stored."""
    return bounded(_printable(value), length)


def presented_template(template: Template | None, mode: Redaction) -> PresentedTemplate:
    if template is None:
        return PresentedTemplate(command=None, arguments=None, variables={}, truncated=())
    command = _joined(template.command, mode)
    arguments = _joined(template.arguments, mode)
    variables, is_cut = _variables(redact_variables(template.variables, mode))
    cut = {
        "command": len(command) > COMMAND_LENGTH,
        "arguments": len(arguments) > COMMAND_LENGTH,
        "environmentVariables": is_cut,
    }
    return PresentedTemplate(
        command=bounded(command, COMMAND_LENGTH) or None,
        arguments=bounded(arguments, COMMAND_LENGTH) or None,
        variables=variables,
        truncated=tuple(name for name, is_cut in cut.items() if is_cut),
    )


def _joined(words: Sequence[str], mode: Redaction) -> str:
    """Quoted for a shell. Redacted values stay unquoted."""
    taken: list[str] = []
    length = 0
    for word in words:
        if length > 2 * COMMAND_LENGTH:
            break
        taken.append(_printable(word[: 2 * COMMAND_LENGTH]))
        length += len(word)
    return " ".join(_quoted(word) for word in redact_arguments(taken, mode))


def _quoted(word: str) -> str:
    return word if word.replace("***", "") == "" and word else shlex.quote(word)


def _variables(values: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    presented: dict[str, str] = {}
    left = ALL_VARIABLES_LENGTH
    is_cut = False
    for name, value in values.items():
        name = printable(name)
        short = bounded(_printable(value), VALUE_LENGTH)
        left -= len(name) + len(short)
        if left < 0:
            return presented, True
        is_cut = is_cut or len(short) < len(value)
        presented[name] = short
    return presented, is_cut


def presented_images(facts: Facts, pods: Iterable[Pod], mode: Redaction) -> tuple[str, ...]:
    """The images of all roles, each once, in the order of the roles; without templates, those of the pods."""
    if facts.has_templates:
        images_by_source = [
            role.template.images for role in facts.roles if role.template is not None
        ]
    else:
        images_by_source = [pod.images for pod in pods]
    images = dict.fromkeys(
        bounded(redact_image(_printable(image[: 2 * _IMAGE_LENGTH]), mode), _IMAGE_LENGTH)
        for image in dict.fromkeys(image for each in images_by_source for image in each)
    )
    return tuple(images)[:MAX_IMAGES]


def presented_conditions(
    conditions: Iterable[Mapping[str, Any]], mode: Redaction
) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=printable(text(condition.get("type"))),
            status=printable(text(condition.get("status"))),
            message=sanitized_message(text(condition.get("message")), mode),
            reason=printable(text(condition.get("reason"))) or None,
            last_transition_time=instant(condition.get("lastTransitionTime")),
        )
        for condition in conditions
        if text(condition.get("type"))
    )


def presented_reasons(
    reasons: Iterable[PendingReason], mode: Redaction
) -> tuple[PendingReason, ...]:
    return tuple(
        msgspec.structs.replace(
            reason,
            reason=printable(reason.reason),
            message=sanitized_message(reason.message, mode) or "",
            user_message=sanitized_message(reason.user_message, mode) or "",
            node_pool=printable(reason.node_pool) if reason.node_pool else None,
        )
        for reason in reasons
    )


def presented_scheduling(
    messages: Iterable[PendingSchedulingMessage], mode: Redaction
) -> tuple[PendingSchedulingMessage, ...]:
    return tuple(
        msgspec.structs.replace(
            message,
            node_pool=printable(message.node_pool),
            reason=sanitized_message(message.reason, mode) or "",
            user_message=sanitized_message(message.user_message, mode),
        )
        for message in messages
    )


def presented_endpoints(endpoints: Iterable[Endpoint], mode: Redaction) -> tuple[Endpoint, ...]:
    return tuple(
        msgspec.structs.replace(
            endpoint,
            host=printable(redact_text(endpoint.host, mode)) if endpoint.host else None,
            path=printable(redact_text(endpoint.path, mode), 1024) if endpoint.path else None,
            protocol=printable(endpoint.protocol) if endpoint.protocol else None,
            url=printable(redact_text(endpoint.url, mode), 2048) if endpoint.url else None,
        )
        for endpoint in endpoints
    )
