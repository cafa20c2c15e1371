"""Every text that a caller may send, made hostile: refused or matching nothing, and never a failure of ours."""

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tests.fixtures.samples import OPERATIONS, SAMPLES
from tests.fixtures.serving import Served
from watchbill.api.http.contract import LoginRequirement
from watchbill.identity import USER_PRINCIPAL, Principal, administrator_rule
from watchbill.identity import ExternalLogin as PersonsLogin
from watchbill.store.identity.accounts import user_upsert
from watchbill.store.identity.administration import RuleChange, rule_change

HOSTILE = ("\x00", "x" * 7000, "\U0001f600\u202e", "' OR 1=1;--", "-1", "9" * 400, "\ud800", "..")
LEFT_OUT = frozenset({"rotate_keys", "stream_workloads"})


def texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(item, (*path, key))
    else:
        yield path


def requests(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Addresses and options: each parameter and each member of the body in turn."""
    operation, sample = OPERATIONS[name], SAMPLES[name]
    base = sample.path.partition("?")[0]
    for hostile in HOSTILE:
        sent = quote(hostile.encode("utf-8", "surrogatepass"))
        if "{" in operation.path:
            head, _, rest = operation.path.partition("{")
            yield head + sent + rest.partition("}")[2], sample.options
        for parameter in operation.parameters:
            if not parameter.is_in_path:
                yield f"{base}?{parameter.name}={sent}", sample.options
        for path in texts(sample.options.get("json", {})):
            body = copy.deepcopy(sample.options["json"])
            principal = body
            for key in path[:-1]:
                principal = principal[key]
            principal[path[-1]] = hostile
            headers = {"Content-Type": "application/json"}
            yield sample.path, {"data": json.dumps(body), "headers": headers}
        for member in sample.options.get("data", {}):
            if "\ud800" not in hostile:
                yield sample.path, {"data": sample.options["data"] | {member: hostile}}


async def a_person(served: Served) -> str:
    """A token of an administrator who is a person: some operations are theirs alone."""
    now = datetime.now(UTC)
    login = PersonsLogin(
        tenant_id=1, issuer="https://id.example.com", external_id="u-1", name="ada@example.com",
        email=None, groups=(), stated_at=now,
    )  # fmt: skip
    change = RuleChange(added=(("user", login.name, administrator_rule(1)),), removed=())
    await rule_change(served.db, 1, change, changed_by="test", now=now)
    principal = Principal(
        tenant_id=1, kind=USER_PRINCIPAL, id=await user_upsert(served.db, login, now=now)
    )
    return await served.services.tokens.issue(principal, client_id=login.name)


async def test_no_text_is_a_failure_of_ours(server: Served) -> None:
    token, asked = await a_person(server), 0
    for name, operation in OPERATIONS.items():
        if operation.login is LoginRequirement.AGENT or name in LEFT_OUT:
            continue
        for path, options in requests(name):
            answer = await server.ask(operation.method, path, token=token, **options)
            assert answer.status < 500, (name, path[:200], str(options)[:200])
            asked += 1
    assert asked > 500
