"""Which allocated GPUs do nothing, since when, and for how many GPU-hours. Pure: times are given.

A device is idle once its utilization has stayed at the threshold for longer than the window, observed without a
gap, with the same holder. If the beginning was not observed, it counts as not measured until the window has
passed.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from watchbill.agent.metrics.devices import Device, DeviceShare, Key
from watchbill.kinds.objects.objects import IdleGpus
from watchbill.workload import gpu_millionths

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSettings:
    """`gap`: a time without samples after which what lies before it does not count."""

    window: timedelta = timedelta(minutes=5)
    threshold_percent: float = 0.0
    gap: timedelta = timedelta(seconds=105)


@dataclass(slots=True)
class _Run:
    """One device allocated to one workload, observed without a gap."""

    seen_since: datetime
    seen_at: datetime
    share: float
    holders: frozenset[str]
    """UIDs of the workload's pods that hold it."""
    is_beginning_known: bool
    zero_since: datetime | None = None

    def idles(self, window: timedelta) -> bool | None:
        if self.zero_since is None:
            return False
        if self.seen_at - self.zero_since > window:
            return True
        return False if self.is_beginning_known or self.zero_since > self.seen_since else None


class IdleTimes:
    """Since when each device has done nothing, as far as it was observed, whoever holds it."""

    def __init__(self) -> None:
        self._since: dict[Key, datetime] = {}

    def observe(self, devices: Iterable[Device], at: datetime) -> dict[Key, float]:
        """Seconds, of the devices whose utilization is known. One that is not seen starts anew."""
        idle = {each.key: each.utilization for each in devices if each.utilization is not None}
        self._since = {
            key: self._since.get(key, at) for key, percent in idle.items() if round(percent) == 0
        }
        return {key: (at - self._since.get(key, at)).total_seconds() for key in idle}


class IdleGpuWatch:
    """Observes every scrape; returns what changed."""

    def __init__(self, settings: IdleSettings) -> None:
        self.by_workload: dict[str, IdleGpus] = {}
        """By workload; a missing workload is not measured."""
        self._settings = settings
        self._runs: dict[str, dict[Key, _Run]] = {}
        self._hours: dict[str, float] = {}
        self._since: dict[str, datetime] = {}
        self._seen: dict[Key, datetime] = {}
        """When each device was last observed, whatever its holder."""

    def observe(
        self, shares: Mapping[str, Iterable[DeviceShare]], devices: Iterable[Key], at: datetime
    ) -> set[str]:
        """Record one scrape. Returns the workloads whose idle GPUs changed."""
        for root, parts in shares.items():
            for key, held in _by_key(parts).items():
                self._since.setdefault(root, at)
                self._extend(root, key, held, at)
        self._seen = {
            key: seen for key, seen in self._seen.items() if at - seen <= self._settings.gap
        } | dict.fromkeys(devices, at)
        for root in tuple(self._runs):
            self._end_stale(root, at)
        roots = self._runs.keys() | self._hours.keys()
        now = {root: idle for root in roots if (idle := self._idle_gpus(root)) is not None}
        changed = {
            root
            for root in now.keys() | self.by_workload.keys()
            if now.get(root) != self.by_workload.get(root)
        }
        self.by_workload = now
        return changed

    def devices(self) -> dict[Key, bool]:
        """Of the devices that a workload holds, whether they do nothing; those that are not known left out."""
        known: dict[Key, bool] = {}
        for runs in self._runs.values():
            for key, run in runs.items():
                is_idle = run.idles(self._settings.window)
                if is_idle is not None:
                    known[key] = is_idle
        return known

    def restore(self, root: str, gpu_hours: float, measured_since: datetime) -> None:
        """Add what earlier agents observed."""
        self._hours[root] = self._hours.get(root, 0.0) + gpu_hours
        self._since[root] = min(measured_since, self._since.get(root, measured_since))

    def forget(self, living: Set[str]) -> None:
        """Forget workloads that are gone."""
        for root in self._since.keys() - living:
            self._runs.pop(root, None)
            self._hours.pop(root, None)
            del self._since[root]
            self.by_workload.pop(root, None)

    def _extend(self, root: str, key: Key, held: "_Held", at: datetime) -> None:
        runs = self._runs.setdefault(root, {})
        run = runs.get(key)
        is_handed_on = run is not None and run.holders.isdisjoint(held.holders)
        if run is not None and (is_handed_on or at - run.seen_at > self._settings.gap):
            self._close(root, run)
            run = None
        if run is None:
            # Observed a moment ago with no or another holder, be it of the same workload: this allocation began
            # since then.
            is_known = key in self._seen and at - self._seen[key] <= self._settings.gap
            run = runs[key] = _Run(at, at, held.share, held.holders, is_beginning_known=is_known)
        is_zero = round(held.utilization) <= self._settings.threshold_percent
        if not is_zero:
            self._close(root, run)
            run.zero_since = None
        elif run.zero_since is None:
            run.zero_since = at
        run.seen_at, run.share, run.holders = at, held.share, held.holders

    def _end_stale(self, root: str, at: datetime) -> None:
        runs = self._runs[root]
        for key, run in tuple(runs.items()):
            if at - run.seen_at > self._settings.gap:
                self._close(root, run)
                del runs[key]
        if not runs:
            del self._runs[root]

    def _close(self, root: str, run: _Run) -> None:
        """An idle period ends at the last moment at which the device was observed idle."""
        if run.zero_since is not None and run.idles(self._settings.window):
            hours = run.share * ((run.seen_at - run.zero_since) / _HOUR)
            self._hours[root] = self._hours.get(root, 0.0) + hours

    def _idle_gpus(self, root: str) -> IdleGpus | None:
        runs = self._runs.get(root, {}).values()
        results = [(run, run.idles(self._settings.window)) for run in runs]
        is_known = any(is_idle is not None for _, is_idle in results)
        if not is_known and root not in self._hours:
            return None
        idle = [
            (run.share, run.zero_since) for run, is_idle in results if is_idle and run.zero_since
        ]
        total = sum(share for share, _ in idle)
        earliest = min((since for _, since in idle), default=None)
        mean = None
        if earliest is not None and total:
            later = sum(share * (since - earliest).total_seconds() for share, since in idle)
            mean = earliest + timedelta(seconds=round(later / total))
        return IdleGpus(
            millionths=gpu_millionths(total) if is_known else None,
            measured_since=self._since[root],
            gpu_hours=self._hours.get(root, 0.0),
            since=earliest,
            mean_since=mean,
        )


class _Held(NamedTuple):
    """A device as one workload's pods hold it in one scrape."""

    share: float
    utilization: float
    holders: frozenset[str]


def _by_key(parts: Iterable[DeviceShare]) -> dict[Key, _Held]:
    """By device; several pods of one workload may share one."""
    devices: dict[Key, list[DeviceShare]] = {}
    for part in parts:
        if part.device.utilization is not None and part.share is not None:
            devices.setdefault(part.device.key, []).append(part)
    return {
        key: _Held(
            share=sum(part.share or 0.0 for part in held),
            utilization=held[0].device.utilization or 0.0,
            holders=frozenset(part.pod.uid for part in held),
        )
        for key, held in devices.items()
    }
