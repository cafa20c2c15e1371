"""Watchbill: one live, truthful, searchable record of every AI workload in every Kubernetes cluster."""

__version__ = "0.1.0"
