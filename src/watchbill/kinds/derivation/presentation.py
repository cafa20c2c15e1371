"""What people are shown of a workload's text, and the names by which they find it: labels, nodes, GPU types.

Cut to a multiple of what is shown, then redacted, then bounded: no work is done on what nobody will see, and no
secret escapes because the bound cut it in two.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec

from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.redact import (
    HIDDEN,
    redact_arguments,
    redact_image,
    redact_text,
    redact_variables,
)
from watchbill.kinds.derivation.workload_class import asks_for_gpus
from watchbill.kinds.objects.gpu_units import gpu_model
from watchbill.kinds.objects.json_access import instant, labels, message_of, pairs, text
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import Template, Variable, is_placeholder
from watchbill.workload import Condition, Endpoint, PendingReason, PendingSchedulingMessage

MESSAGE_LENGTH = 1_024
NAME_LENGTH = 253
VALUE_LENGTH = 2_048
COMMAND_LENGTH = 8_192
ALL_VARIABLES_LENGTH = 16_384
MAX_IMAGES = 50
MAX_CONDITIONS = 100
MAX_LABELS = 64
LABEL_KEY_LENGTH = 317
LABEL_VALUE_LENGTH = 63
_MARGIN = 2
"""How many times of what is shown is looked at."""
_SHARED_LENGTH = 8_192
"""Of all variables that are kept for the next time, in characters."""
_IMAGE_LENGTH = 1_024
_PATH_LENGTH = 1_024
_URL_LENGTH = 2_048


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
    plain = " ".join(message[: _MARGIN * MESSAGE_LENGTH].split())
    return bounded(redact_text(_printable(plain), mode), MESSAGE_LENGTH) or None


def presented_word(value: str, mode: Redaction) -> str:
    """What somebody called a state or a reason: mostly a word, but it may hold an address with a password."""
    return printable(redact_text(value[: _MARGIN * NAME_LENGTH], mode))


def bounded(value: str, length: int) -> str:
    return value if len(value) <= length else value[: length - 1] + "…"


def _printable(value: str) -> str:
    """Without NUL and lone surrogates, which PostgreSQL does not store."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def printable(value: str, length: int = NAME_LENGTH) -> str:
    """A name as it is stored."""
    if len(value) <= length and value.isascii() and "\0" not in value:
        return value
    return bounded(_printable(value), length)


def presented_template(template: Template | None, mode: Redaction) -> PresentedTemplate:
    if template is None:
        return PresentedTemplate(command=None, arguments=None, variables={}, truncated=())
    words = () if any(is_placeholder(word) for word in template.command[:1]) else template.command
    command, is_command_cut = _joined(words, mode)
    arguments, are_arguments_cut = _joined(template.arguments, mode, template.command)
    is_short = _length(template.variables) <= _SHARED_LENGTH
    present = _shared_variables if is_short else _variables
    variables, are_variables_cut = present(template.variables, mode)
    cut = {
        "command": is_command_cut,
        "arguments": are_arguments_cut,
        "environmentVariables": are_variables_cut,
    }
    return PresentedTemplate(
        command=command or None,
        arguments=arguments or None,
        variables=dict(variables),
        truncated=tuple(name for name, is_cut in cut.items() if is_cut),
    )


def _joined(words: Sequence[str], mode: Redaction, command: Sequence[str] = ()) -> tuple[str, bool]:
    """Quoted for a shell, and whether that was too long. Redacted values stay unquoted."""
    taken: list[str] = []
    left = _MARGIN * COMMAND_LENGTH
    for word in words:
        if left <= 0:
            break
        taken.append(_printable(word[:left]))
        left -= len(word)
    joined = " ".join(_quoted(word) for word in redact_arguments(taken, mode, command))
    return bounded(joined, COMMAND_LENGTH), left < 0 or len(joined) > COMMAND_LENGTH


def _quoted(word: str) -> str:
    return word if word.replace(HIDDEN, "") == "" and word else shlex.quote(word)


def _variables(variables: Iterable[Variable], mode: Redaction) -> tuple[dict[str, str], bool]:
    """The variables that fit, and whether any was cut or left out."""
    presented: dict[str, str] = {}
    left, work_left = ALL_VARIABLES_LENGTH, _MARGIN * ALL_VARIABLES_LENGTH
    is_cut = False
    for variable in variables:
        beginning = _beginning(variable)
        work_left -= len(beginning.value)
        name, value = next(iter(redact_variables([beginning], mode).items()))
        short = bounded(_printable(value), VALUE_LENGTH)
        left -= len(name) + len(short)
        if left < 0 or work_left < 0:
            return presented, True
        is_longer = len(variable.value) > len(beginning.value) and value != HIDDEN
        is_cut = is_cut or is_longer or len(short) < len(value)
        presented[name] = short
    return presented, is_cut


def _length(variables: Iterable[Variable]) -> int:
    return sum(len(variable.name) + len(variable.value) for variable in variables)


_shared_variables = lru_cache(maxsize=256)(_variables)
"""A template's are presented once, not with every change of every pod. Nobody changes what it returns."""


def _beginning(variable: Variable) -> Variable:
    return msgspec.structs.replace(
        variable,
        name=printable(variable.name[: _MARGIN * NAME_LENGTH]),
        value=variable.value[: _MARGIN * VALUE_LENGTH],
    )


@lru_cache(maxsize=4096)
def presented_image(image: str, mode: Redaction) -> str:
    return bounded(redact_image(_printable(image[: _MARGIN * _IMAGE_LENGTH]), mode), _IMAGE_LENGTH)


def presented_images(facts: Facts, pods: Iterable[Pod], mode: Redaction) -> tuple[str, ...]:
    """The images of all roles, then those that only pods have, each once.

    A template's image gives way where its pods run another version of it: another tag, or a digest.
    """
    written = [role.template.images for role in facts.roles if role.template is not None]
    pods = list(pods)
    placeholders = any(is_placeholder(image) for each in written for image in each)
    looks_at_ended = not facts.has_templates or placeholders
    of_pods = dict.fromkeys(
        pod.images for pod in pods if looks_at_ended or not (pod.is_terminal or pod.is_terminating)
    )
    running = dict.fromkeys(image for each in of_pods for image in each)
    repositories = {_repository(image) for image in running}
    stated = (image for each in written for image in each if not is_placeholder(image))
    distinct = dict.fromkeys(
        image for image in stated if image in running or _repository(image) not in repositories
    )
    distinct |= running
    images = dict.fromkeys(
        presented_image(image, mode) for image in islice(distinct, _MARGIN * MAX_IMAGES)
    )
    return tuple(images)[:MAX_IMAGES]


@lru_cache(maxsize=4096)
def _presented_label(key: str, value: str, mode: Redaction) -> tuple[str, str]:
    shown = redact_variables([Variable(name=key, value=value, is_reference=False)], mode)
    name, hidden = next(iter(shown.items()))
    return printable(name, LABEL_KEY_LENGTH), printable(hidden, LABEL_VALUE_LENGTH)


def presented_labels(labels: Mapping[str, str], mode: Redaction) -> dict[str, str]:
    """The first `MAX_LABELS`; Kubernetes bounds how long each is."""
    shown = islice(sorted(labels.items()), MAX_LABELS)
    cut = ((key[:LABEL_KEY_LENGTH], value[:LABEL_VALUE_LENGTH]) for key, value in shown)
    return dict(_presented_label(key, value, mode) for key, value in cut)


def _repository(image: str) -> str:
    """The image without its tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def presented_conditions(
    conditions: Iterable[Mapping[str, Any]], mode: Redaction
) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            type=presented_word(text(condition.get("type")), mode),
            status=presented_word(text(condition.get("status")), mode),
            message=sanitized_message(message_of(condition), mode),
            reason=presented_word(text(condition.get("reason")), mode) or None,
            last_transition_time=instant(condition.get("lastTransitionTime")),
        )
        for condition in islice(conditions, MAX_CONDITIONS)
        if text(condition.get("type"))
    )


def presented_reasons(
    reasons: Iterable[PendingReason], mode: Redaction
) -> tuple[PendingReason, ...]:
    return tuple(
        msgspec.structs.replace(
            reason,
            reason=presented_word(reason.reason, mode),
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
            host=_address(endpoint.host, NAME_LENGTH, mode),
            path=_address(endpoint.path, _PATH_LENGTH, mode),
            protocol=printable(endpoint.protocol) if endpoint.protocol else None,
            url=_address(endpoint.url, _URL_LENGTH, mode),
        )
        for endpoint in endpoints
    )


def _address(address: str | None, length: int, mode: Redaction) -> str | None:
    return printable(redact_text(address[: _MARGIN * length], mode), length) if address else None


MAX_NODES = 1_000
MAX_GPU_MODELS = 20


def name_fields(view: WorkloadView, truncated: Iterable[str]) -> dict[str, Any]:
    """Members of `additionalFields`; those without a name are left out. `truncated`: others that are cut."""
    nodes, models = _nodes(view), _gpu_models(view)
    own = pairs(labels(view.root))
    fields = {
        "nodes": nodes[:MAX_NODES],
        "gpuModels": models[:MAX_GPU_MODELS],
        "labels": presented_labels(own, view.settings.redaction),
        "truncated": [
            *truncated,
            *(["nodes"] if len(nodes) > MAX_NODES else []),
            *(["gpuModels"] if len(models) > MAX_GPU_MODELS else []),
            *(["labels"] if len(own) > MAX_LABELS else []),
        ],
    }
    return {name: value for name, value in fields.items() if value}


def _nodes(view: WorkloadView) -> list[str]:
    """Of all its pods, those that have ended too."""
    return sorted({printable(pod.node) for pod in view.pods.all if pod.node})


def _gpu_models(view: WorkloadView) -> list[str]:
    """Of the nodes on which its pods hold or held GPUs; while there are none, those that it asks for."""
    placed = {(id(pod.resources), id(pod.annotations), pod.node): pod for pod in view.pods.all}
    nodes = {pod.node for pod in placed.values() if pod.node and asks_for_gpus(pod, view)}
    models = {gpu_model(view.cluster.node_labels.get(node, {})) for node in nodes} - {""}
    return sorted(map(printable, models or set(_requested_models(view))))


def _requested_models(view: WorkloadView) -> Iterator[str]:
    """Where a selector or a required affinity names what nodes say of their GPUs."""
    templates = [role.template for role in view.facts.roles if role.template is not None]
    wanted = [
        *(entry for each in templates for entry in each.node_selector.items()),
        *(entry for pod in view.pods.all for entry in pod.node_selector),
        *(
            (label, value)
            for each in templates
            for label, values in each.required_node_labels
            for value in values
        ),
    ]
    for label, value in dict.fromkeys(wanted):
        if model := gpu_model({label: value}):
            yield model
