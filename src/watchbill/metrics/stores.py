"""Which store keeps the samples of which cluster: its own, the one for all, or the database."""

from collections.abc import Mapping

from watchbill.metrics.embedded import EmbeddedSamples
from watchbill.metrics.prometheus import PrometheusSamples, StoreConnection
from watchbill.metrics.source import Samples
from watchbill.metrics.workload import WorkloadMetrics
from watchbill.settings.prometheus import PrometheusSettings
from watchbill.store.postgres.database import Database


def workload_metrics(db: Database, settings: Mapping[str, PrometheusSettings]) -> WorkloadMetrics:
    """`settings`: stores by cluster name, "" for every cluster that is not named."""
    session = StoreConnection()
    stores: dict[str, Samples] = {
        name: PrometheusSamples(store, session) for name, store in settings.items()
    }
    otherwise: Samples = stores.get("") or EmbeddedSamples(db)
    return WorkloadMetrics(
        db, lambda cluster_name: stores.get(cluster_name, otherwise), close=session.close
    )
