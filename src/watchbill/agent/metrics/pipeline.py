"""The agent's metrics pipeline: fetcher, scrape rounds, samples, idle GPUs, its own exporter."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

from watchbill.agent.cache.cache import Cache
from watchbill.agent.kubernetes.client import KubeClient
from watchbill.agent.metrics.exporter import Exporter
from watchbill.agent.metrics.idle import IdleSettings
from watchbill.agent.metrics.scrape import Scraper, ScrapeSettings
from watchbill.agent.metrics.scrape_pool import Fetcher
from watchbill.agent.stream.additions import SampleQueue
from watchbill.agent.stream.tracker import Tracker
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import KindState
from watchbill.settings.agent import AgentSettings

GAP_ROUNDS = 3.5
"""After so many rounds without a device, it counts as not measured."""
MIN_GAP_SECONDS = 15.0


class MeasuringLoop:
    """Scrape rounds until cancelled, once the cache is synced; an exporter if a port is configured."""

    def __init__(
        self,
        settings: AgentSettings,
        derive_settings: DeriveSettings,
        *,
        kube: KubeClient,
        cache: Cache,
        tracker: Tracker,
        samples: SampleQueue,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._tracker = tracker
        self._fetcher = Fetcher(kube, is_direct=settings.asks_pods_directly)
        gap = max(MIN_GAP_SECONDS, GAP_ROUNDS * settings.scrape_seconds)
        self.scraper = Scraper(
            ScrapeSettings(
                interval_seconds=settings.scrape_seconds,
                idle=IdleSettings(
                    window=timedelta(seconds=settings.idle_window_seconds),
                    threshold_percent=settings.idle_threshold_percent,
                    gap=timedelta(seconds=gap),
                ),
                gpu_resources=derive_settings.gpu_resources,
                pushes=settings.pushes_samples,
            ),
            fetch=self._fetcher,
            targets=cache.targets,
            cache=cache,
            samples=samples,
            changed=self._on_round,
            api_server=lambda: kube.host,
        )
        self._exporter = Exporter(
            self.scraper, cache, derive_settings.gpu_resources, tracker.turns.seconds
        )

    def states(self) -> tuple[KindState, ...]:
        return self.scraper.states()

    async def run(self, ready: Callable[[], bool]) -> None:
        """The port answers also where nothing is scraped. Raises Unavailable if it cannot be bound."""
        port, host = self._settings.metrics_port, self._settings.metrics_host
        async with self._fetcher, self._exporter.listening(host, port):
            if self._settings.scrape_seconds > 0:
                await self.scraper.run(ready)
            else:
                await asyncio.Event().wait()

    def _on_round(self, roots: Iterable[str]) -> None:
        """A round, or a part of it, is complete: the idle GPUs of `roots` changed."""
        self._cache.idle = self.scraper.idle.by_workload
        for root in roots:
            self._tracker.on_change(root)
        self._tracker.changed.set()
