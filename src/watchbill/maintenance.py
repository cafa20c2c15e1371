"""What a server does without being asked: forget what is old, record the fleet's figures, write the audit log.

One tenant's failure stops no other: the rest of a round goes on, and the round counts as failed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from watchbill.access.audit import FLUSH_SECONDS
from watchbill.api.http.call import Services
from watchbill.api.http.listen import RELOAD_SECONDS, Certificate
from watchbill.background import LoopState
from watchbill.errors import Conflict
from watchbill.settings.retention import Retention, RetentionDays
from watchbill.store.fleet.fleet import STEP_SECONDS, fleet_record
from watchbill.store.fleet.series import pools_record
from watchbill.store.identity.audit import audit_purge
from watchbill.store.ingest.process import CHECK_SECONDS as PROCESS_CHECK_SECONDS
from watchbill.store.ingest.process import IngestProcess
from watchbill.store.metrics.measured import measured_purge
from watchbill.store.postgres.clock import RetentionClock
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.standby import CHECK_SECONDS, Standby
from watchbill.store.postgres.storage import check_disk, table_size_record
from watchbill.store.usage.accounting import (
    ClusterAccount,
    usage_begin,
    usage_purge,
)
from watchbill.store.usage.rounds import usage_finish, usage_last_round
from watchbill.store.workloads.deletion import tenant_list, tenant_name_get, workload_purge
from watchbill.store.workloads.events import event_purge
from watchbill.store.workloads.gone_count import gone_segment_sweep
from watchbill.store.workloads.pod_write import pod_purge
from watchbill.store.workloads.tally import tally_sweep

PURGE_EVERY_SECONDS = 3600.0
ACCOUNT_EVERY_SECONDS = 300.0
ACCOUNTING_SHARE = 0.4
"""Of the time, whatever there is to account: requests come first. Half of it are the rests of its slices."""
DISK_EVERY_SECONDS = 30.0

log = structlog.get_logger(__name__)


def start_maintenance(services: Services) -> None:
    """Starts every loop in `services.background`, whose owner closes it."""
    db, settings = services.db, services.settings
    clock = RetentionClock(db)
    state = LoopState(
        "clock", timedelta(seconds=STEP_SECONDS), datetime.now(UTC), is_required=False
    )
    services.background.include(state)
    rounds = UsageRounds()

    async def purge(_: datetime) -> None:
        now = await trusted(clock.purge_time, state)
        if now is not None:
            try:
                await purge_old(db, services.retention, now=now)
            finally:  # neither keeps the other from its work: what fills a disk is purged, and logged
                await table_size_record(db, now)

    async def record(at: datetime) -> None:
        if await trusted(clock.check, state) is not None:
            await record_fleets(db, at)

    async def account(at: datetime) -> None:
        if await trusted(clock.check, state) is not None:
            await rounds.run(db, at)

    async def write_audit(_: datetime) -> None:
        await services.audit.flush()

    async def check_space(_: datetime) -> None:
        check_disk(settings.data_dir)

    if settings.database_url is None:
        # Readiness looks for itself.
        services.background.start("disk", DISK_EVERY_SECONDS, check_space, is_required=False)
    services.background.start("purge", PURGE_EVERY_SECONDS, purge)
    services.background.start("fleet recording", STEP_SECONDS, record, is_aligned=True)
    # Without it usage is late, and nothing else.
    services.background.start("usage accounting", ACCOUNT_EVERY_SECONDS, account, is_required=False)
    services.background.start("audit log", FLUSH_SECONDS, write_audit)


def start_standby_checks(services: Services, standby: Standby) -> None:
    """Without them nobody reads from the standby: the primary answers, and the server is ready."""

    async def check(_: datetime) -> None:
        await standby.check()

    services.background.start("standby", CHECK_SECONDS, check, is_required=False)


def start_message_checks(services: Services, process: IngestProcess) -> None:
    """A server that cannot take agents' messages is not ready: another one may."""

    async def check(_: datetime) -> None:
        await process.check()

    services.background.start("agents' messages", PROCESS_CHECK_SECONDS, check)


def start_reloading(services: Services, certificate: Certificate) -> None:
    """One that cannot be used shows in log and metrics; the server goes on with the old one, and is ready."""
    services.background.start("certificate", RELOAD_SECONDS, certificate.reload, is_required=False)


async def trusted(
    check: Callable[[datetime], Awaitable[datetime]], state: LoopState
) -> datetime | None:
    """The time to work by; None where a clock cannot be trusted, which `state` tells. Work waits meanwhile."""
    now = datetime.now(UTC)
    try:
        checked = await check(now)
    except Conflict as error:
        state.fail(error)
        return None
    state.succeed(now)
    return checked


async def purge_old(db: Database, retention: Retention, *, now: datetime) -> None:
    """Remove what was deleted, measured or audited longer before `now` than its tenant keeps it."""

    async def kept(tenant_id: int) -> RetentionDays:
        return retention.of(await tenant_name_get(db, tenant_id))

    async def purge_measured(tenant_id: int) -> None:
        days = (await kept(tenant_id)).metrics
        longest = retention.longest_metrics_days
        if dropped := await measured_purge(db, tenant_id, days=days, longest_days=longest, now=now):
            log.info("dropped days of measured samples", tenant_id=tenant_id, count=dropped)

    async def purge_pods(tenant_id: int) -> None:
        await _purge_pods_and_events(db, tenant_id, now)

    async def purge_records(tenant_id: int) -> None:
        await tally_sweep(db, tenant_id)
        await gone_segment_sweep(db, tenant_id, now=now)
        keep = timedelta(days=(await kept(tenant_id)).deleted)
        if purged := await workload_purge(db, tenant_id, keep=keep, now=now):
            log.info("purged deleted workloads", tenant_id=tenant_id, count=purged)

    async def purge_audit(tenant_id: int) -> None:
        keep = timedelta(days=(await kept(tenant_id)).audit)
        await audit_purge(db, tenant_id, keep=keep, now=now)

    async def purge_usage(tenant_id: int) -> None:
        keep = timedelta(days=(await kept(tenant_id)).usage)
        await usage_purge(db, tenant_id, keep=keep, now=now)

    await for_each_tenant(db, purge_measured, purge_records, purge_pods, purge_audit, purge_usage)


async def _purge_pods_and_events(db: Database, tenant_id: int, now: datetime) -> None:
    if purged := await pod_purge(db, tenant_id, now=now):
        log.info("purged pods that are gone", tenant_id=tenant_id, count=purged)
    if purged := await event_purge(db, tenant_id, now=now):
        log.info("purged events", tenant_id=tenant_id, count=purged)


class UsageRounds:
    """Accounts every tenant's usage as far as it is settled, a step of each cluster in turn.

    So a cluster with more than there is time for delays no other. The next round goes on where it was, and
    what is finished then is the round in which it began.
    After each step it rests, so that it works for no more than a `share` of the time.
    """

    def __init__(
        self,
        *,
        seconds: float = ACCOUNT_EVERY_SECONDS,
        share: float = ACCOUNTING_SHARE,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._share = share
        self._elapsed = elapsed
        self._begun: dict[UUID, ClusterAccount] = {}
        """By cluster, what there was no time to finish."""

    async def run(self, db: Database, now: datetime) -> None:
        """Raises ExceptionGroup of the clusters that failed, when the others are done or time is up."""
        deadline = self._elapsed() + self._seconds
        waiting: deque[ClusterAccount] = deque()
        failures: list[Exception] = []
        unfinished: set[int] = set()
        last: dict[int, datetime | None] = {}
        began: dict[int, datetime] = {}
        for tenant_id in await tenant_list(db):
            try:
                last[tenant_id] = await usage_last_round(db, tenant_id)
                accounts = await usage_begin(db, tenant_id, now, last[tenant_id], self._begun)
                began[tenant_id] = min((each.began_at for each in accounts), default=now)
                waiting += accounts
            except Exception as error:
                error.add_note(f"tenant {tenant_id}")
                failures.append(error)
                unfinished.add(tenant_id)
        self._begun = {}
        while waiting and self._elapsed() < deadline:
            cluster, step_began = waiting.popleft(), self._elapsed()
            try:
                if await cluster.step(db):
                    waiting.append(cluster)
                elif cluster.is_elsewhere:
                    unfinished.add(cluster.tenant_id)
            except Exception as error:
                error.add_note(f"tenant {cluster.tenant_id}: cluster {cluster.cluster_id}")
                failures.append(error)
                unfinished.add(cluster.tenant_id)
            await asyncio.sleep((self._elapsed() - step_began) * (1 / self._share - 1))
        for cluster in waiting:
            self._begun[cluster.cluster_id] = cluster
            unfinished.add(cluster.tenant_id)
        for tenant_id in last.keys() - unfinished:
            await usage_finish(db, tenant_id, min(now, began[tenant_id]), last[tenant_id])
        if failures:
            raise ExceptionGroup(
                f"{len(failures)} clusters or tenants were not accounted", failures
            )


async def record_fleets(db: Database, at: datetime) -> None:
    """Keep every tenant's headline figures of the instant `at`, a multiple of STEP_SECONDS."""

    async def record(tenant_id: int) -> None:
        if await fleet_record(db, tenant_id, at):
            await pools_record(db, tenant_id, at)

    await for_each_tenant(db, record)


async def for_each_tenant(db: Database, *steps: Callable[[int], Awaitable[None]]) -> None:
    """Every step for every tenant, whatever fails. Raises ExceptionGroup of what did, when all is done."""
    failures: list[Exception] = []
    for tenant_id in await tenant_list(db):
        for step in steps:
            try:
                await step(tenant_id)
            except Exception as error:
                error.add_note(f"tenant {tenant_id}: {step.__name__}")
                failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} steps of a round failed", failures)
