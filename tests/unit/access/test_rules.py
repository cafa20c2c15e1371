"""From rules to what a caller may read, and how often it may ask."""

import asyncio
import contextlib
from uuid import UUID, uuid4

import pytest

from watchbill.access.caller import caller_of
from watchbill.access.roles import PREDEFINED, Permission, Roles, with_custom
from watchbill.api.limits import (
    MAX_DELAYED_REFUSALS,
    MAX_PRINCIPALS,
    LoginLimiter,
    RefusalDelay,
    TokenBuckets,
)
from watchbill.errors import Invalid, TooMany, Unauthenticated
from watchbill.identity import ACCOUNT_PRINCIPAL, SERVICE_ACCOUNT, Principal, Rule, Subject
from watchbill.query import Scope
from watchbill.store.identity.accounts import (
    is_secret,
    new_agent_credential,
    new_secret,
    read_agent_credential,
    store_secret,
)

CLUSTER = UUID("71f69d83-ba66-4822-adf5-55ce55efd210")


def rule(role: str, scope_kind: str, scope_id: object) -> Rule:
    return Rule(role=role, scope_kind=scope_kind, scope_id=str(scope_id))


def subject(*rules: Rule, tenant_id: int = 1) -> Subject:
    principal = Principal(tenant_id=tenant_id, kind=ACCOUNT_PRINCIPAL, id=uuid4())
    return Subject(
        principal=principal, kind=SERVICE_ACCOUNT, subject="wbc-1", name="ci", rules=rules
    )


SCOPES = [
    ((), Scope(1)),
    ((rule("viewer", "tenant", 1),), Scope(1, is_whole_tenant=True)),
    ((rule("administrator", "tenant", 1),), Scope(1, is_whole_tenant=True)),
    ((rule("viewer", "tenant", 2),), Scope(1)),
    ((rule("viewer", "cluster", CLUSTER),), Scope(1, cluster_ids=frozenset({CLUSTER}))),
    ((rule("viewer", "department", 7),), Scope(1, department_ids=frozenset({7}))),
    (
        (
            rule("viewer", "project", 3),
            rule("viewer", "project", 4),
            rule("viewer", "department", 1),
        ),
        Scope(1, department_ids=frozenset({1}), project_ids=frozenset({3, 4})),
    ),
    ((rule("nobody-knows", "tenant", 1),), Scope(1)),
    ((rule("viewer", "galaxy", 1),), Scope(1)),
    ((rule("viewer", "cluster", "x"), rule("viewer", "project", "1; --")), Scope(1)),
    ((rule("viewer", "project", 2**31), rule("viewer", "department", -1)), Scope(1)),
]


@pytest.mark.parametrize(("rules", "expected"), SCOPES)
def test_scope_is_the_union_of_what_is_granted(rules: tuple[Rule, ...], expected: Scope) -> None:
    assert caller_of(subject(*rules), Roles()).scope == expected


@pytest.mark.parametrize(
    ("granted", "is_administrator"),
    [
        (rule("administrator", "tenant", 1), True),
        (rule("administrator", "tenant", 2), False),
        (rule("administrator", "cluster", CLUSTER), False),
        (rule("viewer", "tenant", 1), False),
    ],
)
def test_only_the_whole_tenant_makes_an_administrator(
    granted: Rule, is_administrator: bool
) -> None:
    assert caller_of(subject(granted), Roles()).is_administrator is is_administrator


def test_predefined_roles_know_no_surprises() -> None:
    """Everybody may read, few may do more, and nobody anything that the table does not say."""
    writing = {
        role.name: role.permissions - {Permission.WORKLOADS_READ, Permission.CLUSTERS_READ}
        for role in PREDEFINED
    }
    assert {name: rights for name, rights in writing.items() if rights} == {
        "administrator": frozenset(Permission)
        - {Permission.WORKLOADS_READ, Permission.CLUSTERS_READ},
        "cluster-registrar": {Permission.CLUSTERS_WRITE},
        "auditor": {Permission.AUDIT_READ, Permission.ACCESS_READ},
        "metrics-reader": {Permission.SERVER_READ},
    }
    without = {r.name for r in PREDEFINED if Permission.WORKLOADS_READ not in r.permissions}
    assert without == {"cluster-registrar", "auditor", "metrics-reader"}
    assert Roles().permissions("system-administrator") == frozenset(Permission)
    assert Roles().permissions("nobody") == frozenset()


@pytest.mark.parametrize(
    "permission", sorted(set(Permission) - {"workloads:read", "clusters:read"})
)
def test_what_knows_no_scopes_takes_the_whole_tenant(permission: Permission) -> None:
    for scope in (("cluster", CLUSTER), ("department", 1), ("project", 1), ("tenant", 2)):
        caller = caller_of(subject(rule("administrator", *scope)), Roles())
        assert not caller.may(permission)
    assert caller_of(subject(rule("administrator", "tenant", 1)), Roles()).may(permission)


def test_the_server_belongs_to_the_first_tenant() -> None:
    other = subject(rule("administrator", "tenant", 2), tenant_id=2)
    caller = caller_of(other, Roles())
    assert caller.may(Permission.ACCESS_WRITE)
    assert not caller.may(Permission.SERVER_READ)


def test_roles_of_ones_own() -> None:
    roles = with_custom({"gpu-board": ["workloads:read"]})
    caller = caller_of(subject(rule("gpu-board", "cluster", CLUSTER)), roles)
    assert caller.scope == Scope(1, cluster_ids=frozenset({CLUSTER}))
    assert not caller.may(Permission.CLUSTERS_READ)
    for bad in ({"viewer": []}, {"x": ["workloads:write"]}, {"system-administrator": []}):
        with pytest.raises(Invalid):
            with_custom(bad)


def test_account_secrets_are_kept_salted() -> None:
    secret = new_secret()
    first, second = store_secret(secret), store_secret(secret)
    assert first.hash != second.hash
    assert secret.encode() not in first.hash + first.salt
    assert is_secret(secret, first)
    assert not is_secret(secret + "x", first)
    assert not is_secret("", first)


def test_agent_credentials_name_their_cluster() -> None:
    credential, stored = new_agent_credential(CLUSTER)
    cluster_id, secret = read_agent_credential(credential)
    assert cluster_id == CLUSTER
    assert is_secret(secret, stored)
    assert not is_secret(secret[:-1] + "!", stored)
    assert "\n" not in credential


@pytest.mark.parametrize(
    "text",
    ["", "wba..", "wba.x.y", f"wba.{CLUSTER}.", f"wbb.{CLUSTER}.{'s' * 43}", f"wba.{CLUSTER}.{'s' * 43}\n"],
)  # fmt: skip
def test_what_is_no_agent_credential(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read_agent_credential(text)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills_again() -> None:
    clock = Clock()
    buckets = TokenBuckets(2.0, 4.0, clock)
    for _ in range(4):
        buckets.take("ada")
    with pytest.raises(TooMany) as refused:
        buckets.take("ada")
    assert refused.value.retry_after_seconds == 1
    buckets.take("grace")
    clock.now += 0.75  # half a second for the next one, a quarter for the refusal
    buckets.take("ada")
    with pytest.raises(TooMany):
        buckets.take("ada")
    clock.now += 1000
    for _ in range(4):
        buckets.take("ada")
    with pytest.raises(TooMany):
        buckets.take("ada")


@pytest.mark.parametrize(("asked", "admitted"), [(8, 80), (10, 100), (15, 50), (20, 0), (100, 0)])
def test_who_keeps_asking_too_fast_gets_less(asked: int, admitted: int) -> None:
    """Per second, of ten that are granted; over ten seconds, once the burst is used up."""
    clock = Clock()
    buckets = TokenBuckets(10.0, 10.0, clock)
    through = 0
    for number in range(asked * 30):
        clock.now += 1 / asked
        with contextlib.suppress(TooMany):
            buckets.take("ada")
            through += number >= asked * 20
    assert through == pytest.approx(admitted, abs=3)


def test_a_flood_is_forgiven_within_seconds() -> None:
    clock = Clock()
    buckets = TokenBuckets(10.0, 10.0, clock)
    for _ in range(10_000):
        with contextlib.suppress(TooMany):
            buckets.take("ada")
    with pytest.raises(TooMany) as refused:
        buckets.take("ada")
    assert refused.value.retry_after_seconds == 2
    clock.now += refused.value.retry_after_seconds
    buckets.take("ada")


async def test_refusals_are_held_back_but_never_too_many() -> None:
    pace = RefusalDelay()
    waiting = [asyncio.create_task(pace.wait()) for _ in range(MAX_DELAYED_REFUSALS)]
    await asyncio.sleep(0)
    beyond = asyncio.create_task(pace.wait())
    await asyncio.sleep(0)
    assert beyond.done(), "it does not wait"
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    again = asyncio.create_task(pace.wait())
    await asyncio.sleep(0)
    assert not again.done(), "there is room again"
    for task in (again, *waiting):
        task.cancel()
    await asyncio.wait((again, *waiting))


def test_buckets_forget_whoever_is_quiet() -> None:
    clock = Clock()
    buckets = TokenBuckets(1.0, 2.0, clock)
    for number in range(3 * MAX_PRINCIPALS):
        clock.now += 0.01
        buckets.take(number)
    assert len(buckets._buckets) <= MAX_PRINCIPALS + 1


def test_failed_and_successful_sign_ins_are_limited_apart() -> None:
    clock = Clock()
    limiter = LoginLimiter(clock)
    for _ in range(10):
        limiter.check("wbc-1", "192.0.2.1")
        limiter.record("wbc-1", "192.0.2.1", is_failed=True)
    with pytest.raises(TooMany) as refused:
        limiter.check("wbc-1", "192.0.2.1")
    assert refused.value.retry_after_seconds == 60
    limiter.check("wbc-1", "192.0.2.2")
    limiter.check("wbc-2", "192.0.2.1")
    clock.now += 61
    for _ in range(120):
        limiter.check("wbc-1", "192.0.2.1")
        limiter.record("wbc-1", "192.0.2.1", is_failed=False)
    with pytest.raises(TooMany):
        limiter.check("wbc-1", "192.0.2.1")
