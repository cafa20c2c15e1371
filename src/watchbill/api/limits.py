"""Rate and concurrency limits, and throttled log lines. All in memory, per server."""

import asyncio
import hashlib
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Literal, get_args

from cachetools import LRUCache, TTLCache

from watchbill.errors import Invalid, TooLarge, TooMany, Unauthenticated, Unavailable
from watchbill.identity import AgentIdentity
from watchbill.store.ingest.messages import SMALL_MESSAGE_BYTES, MessageSize

MAX_PRINCIPALS = 10_000
AGENT_REQUESTS_PER_SECOND = 50
AGENT_REQUESTS_BURST = 100
CONCURRENT_EXPORTS = 2
CONCURRENT_READS = 8
CONCURRENT_METRICS_QUERIES = 4
QUEUE_SECONDS = 2.0
AGENT_QUEUE_SECONDS = 15.0
MAX_AGENT_QUEUED = 4
AGENT_LARGE_BODIES = 12
"""Of one tenant's agents, held at a time: up to 4 MiB each, while they are sent and wait for their turn."""
AGENT_BYTES_PER_SECOND = 1024 * 1024
AGENT_BYTES_BURST = 4 * 1024**3
AGENT_STARTS_PER_SECOND = 0.2
AGENT_STARTS_BURST = 60
"""What an agent that starts needs to know is searched for among all that its cluster ever had."""
REFUSED_MESSAGE_SECONDS = 0.5
MAX_QUEUED = 64
DEVICE_LOGINS_PER_SECOND = 0.2
DEVICE_LOGINS_BURST = 20
ADDRESSES_PER_NETWORK = 10
"""A network may start as many device logins as so many of its addresses together: of those that are open at a
time, a seventh."""
CONCURRENT_STREAMS = 20
MAX_STREAMS = 2_000
FAILED_LOGINS_PER_MINUTE = 10
LOGINS_PER_MINUTE = 120
MINUTE_SECONDS = 60.0
LOG_SECONDS = 1.0
REFUSAL_COST = 0.5
TENANT_SHARE = 4
"""A tenant may ask as often as so many of its principals together."""
REFUSAL_DELAY_SECONDS = 1.0
REFUSALS_AT_ONCE = 40
"""So many wait for as long as that; of more each waits longer, up to so many times as long:"""
MOST_REFUSAL_DELAYS = 6
MAX_DELAYED_REFUSALS = 512
SPACING_SECONDS = 0.004
CONCURRENT_LOOKUPS = 3
MAX_REFUSED_CREDENTIALS = 10_000
REFUSED_CREDENTIAL_SECONDS = 5.0
"""For so long a refusal holds where it is final: sessions and agents' credentials are random and handed out
once they are stored, so nobody has tried one before. Only a database that is restored makes one valid again."""

Clock = Callable[[], float]
PacedLookup = Literal["revocation", "device login", "device poll"]


class TokenBuckets:
    """A bucket per principal: `burst` requests at once, refilled at `per_second`.

    A refused request takes half of what an admitted one takes, down to a second's worth: who goes on asking at
    twice its rate gets nothing until it slows down, and others hardly notice.
    """

    def __init__(self, per_second: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: LRUCache[Hashable, _Bucket] = LRUCache(MAX_PRINCIPALS)

    def take(self, principal: Hashable, cost: float = 1.0) -> None:
        """Raises TooMany, with the seconds until there is one again. One that costs more than is left is let
        through, and paid off afterwards."""
        bucket = self._refilled(principal)
        if bucket.level < 1.0:
            bucket.level = min(bucket.level, max(bucket.level - REFUSAL_COST, -self._per_second))
            wait = math.ceil((1.0 - bucket.level) / self._per_second)
            raise TooMany("Too many requests.", retry_after_seconds=max(1, wait))
        bucket.level -= cost

    def pay(self, principal: Hashable, cost: float) -> None:
        """For what was let through before anybody knew what it costs."""
        self._refilled(principal).level -= cost

    def _refilled(self, principal: Hashable) -> "_Bucket":
        now = self._clock()
        bucket = self._buckets.get(principal)
        if bucket is None:
            bucket = self._buckets[principal] = _Bucket(self._burst, now)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._per_second)
        bucket.at = now
        return bucket


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class RefusalDelay:
    """Delays a refusal for exceeding a rate, so that a client that retries at once cannot spin: the more wait,
    the longer, so that more connections get no more refusals. The delay varies, and no two end together, so
    that others' requests stand behind one at most. Beyond a number that wait, a refusal is immediate."""

    def __init__(self, *, longest: float = MOST_REFUSAL_DELAYS) -> None:
        """`longest`: so many times as long as the first, however many wait."""
        self._longest = longest
        self.waiting = 0
        self._last = 0.0

    async def wait(self) -> None:
        if self.waiting >= MAX_DELAYED_REFUSALS:
            return
        self.waiting += 1
        try:
            await asyncio.sleep(self.seconds())
            now = asyncio.get_running_loop().time()
            self._last = max(
                now, min(self._last, now + MAX_DELAYED_REFUSALS * SPACING_SECONDS) + SPACING_SECONDS
            )
            await asyncio.sleep(self._last - now)
        finally:
            self.waiting -= 1

    def seconds(self) -> float:
        """How late the next refusal is."""
        many = min(self._longest, self.waiting / REFUSALS_AT_ONCE)
        return REFUSAL_DELAY_SECONDS * max(1.0, many) * random.uniform(0.5, 1.5)  # noqa: S311


class PacedRate:
    """A rate of which refusals come late: the later the more wait, up to so many times as late."""

    def __init__(
        self, per_second: float, burst: float, *, longest: float = MOST_REFUSAL_DELAYS
    ) -> None:
        self._buckets = TokenBuckets(per_second, burst)
        self._delay = RefusalDelay(longest=longest)

    async def take(self, principal: Hashable) -> None:
        """Raises TooMany, not at once."""
        try:
            self._buckets.take(principal)
        except TooMany:
            await self._delay.wait()
            raise


class UnverifiedCredentialLimiter:
    """Credentials that anybody may have invented. Lookups in the database run a few at a time, so that a flood
    never holds the connections; beyond an address's rate each one is delayed, so that it cannot spin. Nobody
    is refused for what others behind the same address send, and a credential that was valid before waits for
    nobody."""

    def __init__(self, per_second: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._rate = TokenBuckets(per_second, burst)
        self._delay = RefusalDelay()
        self._paced = {kind: RefusalDelay() for kind in get_args(PacedLookup)}
        self._lookups = asyncio.Semaphore(CONCURRENT_LOOKUPS)
        self._verified: LRUCache[bytes, bool] = LRUCache(MAX_PRINCIPALS)
        self._refused: TTLCache[bytes, str, float] = TTLCache(
            MAX_REFUSED_CREDENTIALS, ttl=REFUSED_CREDENTIAL_SECONDS, timer=clock
        )

    @asynccontextmanager
    async def lookup(
        self, address: str, credential: str, *, is_final: bool = False
    ) -> AsyncIterator[None]:
        """Around a lookup that raises Unauthenticated for a wrong credential. Raises Unavailable where it is
        not its turn in time: a database that hangs must not make a queue. `is_final`: what was refused is
        refused again for a moment without a lookup."""
        key = hashlib.sha256(credential.encode()).digest()
        is_verified = self._verified.get(key, False)
        try:
            self._refuse_again(key)
            async with nullcontext() if is_verified else self._turn():
                self._refuse_again(key)  # others may have asked meanwhile
                yield
        except Unauthenticated as error:
            self._verified.pop(key, None)
            if is_final:
                self._refused.setdefault(key, error.message)
            await self.count(address)
            raise
        self._verified[key] = True

    def _refuse_again(self, key: bytes) -> None:
        message = self._refused.get(key)
        if message is not None:
            raise Unauthenticated(message)

    @asynccontextmanager
    async def paced_lookup(self, address: str, kind: PacedLookup) -> AsyncIterator[None]:
        """Around a lookup whose outcome says nothing about the credential: every one counts against the
        address's rate, and waits for no others but of its kind. Raises Unavailable, as `lookup` does, and at
        once beyond the rate where no more can wait."""
        await self.count(address, self._paced[kind])
        async with self._turn():
            yield

    async def count(self, address: str, delay: RefusalDelay | None = None) -> None:
        """After a check that failed. Beyond the address's rate, not at once."""
        try:
            self._rate.take(address_unit(address))
        except TooMany:
            if delay and delay.waiting >= MAX_DELAYED_REFUSALS:
                raise Unavailable("Try again in a moment.", retry_after_seconds=1) from None
            await (delay or self._delay).wait()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._lookups.acquire()
        except TimeoutError as error:
            raise Unavailable("Try again in a moment.", retry_after_seconds=1) from error
        try:
            yield
        finally:
            self._lookups.release()


def address_unit(address: str) -> str:
    """What one client can be assumed to have: an IPv4 address, of IPv6 a /64, within which addresses are
    free. Everything that counts by address counts by this."""
    try:
        parsed = IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))


def address_network(address: str) -> str:
    """What one party may well have: of IPv6 a /48, of IPv4 a /24."""
    unit = address_unit(address)
    try:
        parsed = ip_address(unit)
    except ValueError:
        return unit
    return str(ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


class DeviceLoginLimiter:
    """How many device logins an address may start, and a network."""

    def __init__(self) -> None:
        self._addresses = TokenBuckets(DEVICE_LOGINS_PER_SECOND, DEVICE_LOGINS_BURST)
        self._networks = TokenBuckets(
            ADDRESSES_PER_NETWORK * DEVICE_LOGINS_PER_SECOND,
            ADDRESSES_PER_NETWORK * DEVICE_LOGINS_BURST,
        )

    def take(self, address: str) -> None:
        """Raises TooMany."""
        self._addresses.take(address_unit(address))
        self._networks.take(address_network(address))


class RejectingConcurrencyLimiter:
    """How many of a kind one principal may have going at the same time."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._taken: dict[Hashable, int] = {}

    @contextmanager
    def hold(self, principal: Hashable) -> Iterator[None]:
        """Raises TooMany."""
        taken = self._taken.get(principal, 0)
        if taken >= self._most:
            raise TooMany(f"Too many concurrent {self._what}.", retry_after_seconds=10)
        self._taken[principal] = taken + 1
        try:
            yield
        finally:
            self._taken[principal] -= 1
            if not self._taken[principal]:
                del self._taken[principal]


class ConcurrencyLimiter:
    """How many of a kind one principal may have going at the same time, the others waiting a little: a page
    that asks much at once is no attack. Beyond a queue and a moment they are refused."""

    def __init__(
        self,
        most: int,
        what: str,
        *,
        queue_seconds: float | None = None,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        """`queue_seconds` None = QUEUE_SECONDS."""
        self._most = most
        self._what = what
        self._queue_seconds = queue_seconds
        self._max_queued = max_queued
        self._queues: dict[Hashable, _Queue] = {}

    def hold(self, principal: Hashable) -> "_Turn":
        """One of the turns, until the block ends. Raises TooMany."""
        return _Turn(self, principal)

    async def enter(self, principal: Hashable) -> None:
        queue = self._queues.get(principal)
        if queue is None:
            queue = self._queues[principal] = _Queue(asyncio.Semaphore(self._most))
        if queue.present >= self._most + self._max_queued:
            raise TooMany(f"Too many concurrent {self._what}.", retry_after_seconds=1)
        queue.present += 1
        try:
            await self._take(queue)
        except BaseException:
            self._leave(principal, queue)
            raise

    def leave(self, principal: Hashable) -> None:
        queue = self._queues[principal]
        queue.turns.release()
        self._leave(principal, queue)

    def _leave(self, principal: Hashable, queue: "_Queue") -> None:
        queue.present -= 1
        if not queue.present:
            self._queues.pop(principal, None)

    async def _take(self, queue: "_Queue") -> None:
        if not queue.turns.locked():
            await queue.turns.acquire()
            return
        seconds = QUEUE_SECONDS if self._queue_seconds is None else self._queue_seconds
        try:
            async with asyncio.timeout(seconds):
                await queue.turns.acquire()
        except TimeoutError as error:
            raise TooMany(f"Too many concurrent {self._what}.", retry_after_seconds=1) from error


@dataclass(slots=True)
class _Queue:
    turns: asyncio.Semaphore
    present: int = 0


def agents_share(connections: int) -> int:
    """How many messages of all agents are in work at a time, each with a connection."""
    return max(1, connections // 2)


@dataclass(frozen=True, slots=True)
class _Turn:
    limiter: ConcurrencyLimiter
    principal: Hashable

    async def __aenter__(self) -> None:
        await self.limiter.enter(self.principal)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.limiter.leave(self.principal)


class AgentLimiter:
    """What agents may have of the server: one message at a time each, and a share of the connections to the
    database, of which one tenant's have half. Nothing is decoded before its turn, so memory is bounded too."""

    def __init__(self, connections: int) -> None:
        share = agents_share(connections)
        self._bytes = TokenBuckets(AGENT_BYTES_PER_SECOND, AGENT_BYTES_BURST)
        self._starts = TokenBuckets(AGENT_STARTS_PER_SECOND, AGENT_STARTS_BURST)
        self._delay = RefusalDelay()
        self._messages = ConcurrencyLimiter(
            1,
            "messages of an agent",
            queue_seconds=AGENT_QUEUE_SECONDS,
            max_queued=MAX_AGENT_QUEUED,
        )
        self._bodies = ConcurrencyLimiter(
            AGENT_LARGE_BODIES, "large messages of agents", queue_seconds=AGENT_QUEUE_SECONDS
        )
        self._tenants = ConcurrencyLimiter(
            max(1, share // 2), "messages of agents", queue_seconds=AGENT_QUEUE_SECONDS
        )
        self._all = ConcurrencyLimiter(
            share, "messages of agents", queue_seconds=AGENT_QUEUE_SECONDS, max_queued=1_000
        )

    def admit(self, agent: AgentIdentity, operation: str) -> None:
        """Raises TooMany for who sent too much before, or starts too often; who waits as long as that says
        loses nothing."""
        if operation == "hello":
            self._starts.take(agent.cluster_id)
        self._bytes.take(agent.cluster_id, 0.0)

    def charge(self, agent: AgentIdentity, size_bytes: int) -> None:
        """Count what an agent sent, inflated."""
        self._bytes.pay(agent.cluster_id, size_bytes)

    @asynccontextmanager
    async def message(self, agent: AgentIdentity) -> AsyncIterator[None]:
        """Around the reading of a message and everything that follows. Raises TooMany, not at once: an agent
        that sends one message at a time never meets it."""
        try:
            await self._messages.enter(agent.cluster_id)
        except TooMany:
            await self._delay.wait()
            raise
        try:
            yield
        finally:
            self._messages.leave(agent.cluster_id)

    def body(
        self, agent: AgentIdentity, sent_bytes: int | None
    ) -> AbstractAsyncContextManager[None]:
        """Within `message`, around the reading of a body of so many bytes (None = it does not say) and
        everything that follows. Raises TooMany."""
        if sent_bytes is not None and sent_bytes <= SMALL_MESSAGE_BYTES:
            return nullcontext()
        return self._bodies.hold(agent.tenant_id)

    @asynccontextmanager
    async def slow_refusal(self) -> AsyncIterator[MessageSize]:
        """Within `message`: whoever sent much that cannot be taken waits before its next message is read."""
        size = MessageSize()
        try:
            yield size
        except (Invalid, TooLarge) as error:
            if isinstance(error, TooLarge) or size.bytes > SMALL_MESSAGE_BYTES:
                await asyncio.sleep(REFUSED_MESSAGE_SECONDS)
            raise

    @asynccontextmanager
    async def processing(self, agent: AgentIdentity) -> AsyncIterator[None]:
        """Around what takes memory and a connection: decoding and applying. Raises TooMany."""
        async with self._tenants.hold(agent.tenant_id), self._all.hold(None):
            yield


class LogThrottle:
    """Allows one log line a second per cause, so that a flood fills no disk, and counts the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[Hashable, tuple[float, int]] = {}

    def admits(self, cause: Hashable) -> int | None:
        """How many lines were left out since the last one; None where this one is left out too."""
        now = self._clock()
        logged_at, left_out = self._logged.get(cause, (-math.inf, 0))
        if now - logged_at < LOG_SECONDS:
            self._logged[cause] = (logged_at, left_out + 1)
            return None
        self._logged[cause] = (now, 0)
        return left_out


class LoginLimiter:
    """Logins of the last minute by client id and address, failed and successful counted apart."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._attempts: dict[Hashable, deque[float]] = {}

    def check(self, client_id: str, address: str) -> None:
        """Raises TooMany where either limit is reached. A failed attempt counts for the id whether it
        exists or not."""
        for is_failed, most in ((True, FAILED_LOGINS_PER_MINUTE), (False, LOGINS_PER_MINUTE)):
            attempts = self._recent((client_id, address_unit(address), is_failed))
            if len(attempts) >= most:
                wait = math.ceil(attempts[0] + MINUTE_SECONDS - self._clock())
                raise TooMany("Too many logins.", retry_after_seconds=max(1, wait))

    def record(self, client_id: str, address: str, *, is_failed: bool) -> None:
        key = (client_id, address_unit(address), is_failed)
        self._attempts.setdefault(key, deque()).append(self._clock())
        if len(self._attempts) > MAX_PRINCIPALS:  # the oldest is forgotten first
            del self._attempts[next(iter(self._attempts))]

    def _recent(self, key: Hashable) -> deque[float]:
        attempts = self._attempts.get(key, deque())
        while attempts and attempts[0] <= self._clock() - MINUTE_SECONDS:
            attempts.popleft()
        if not attempts:
            self._attempts.pop(key, None)
        return attempts
