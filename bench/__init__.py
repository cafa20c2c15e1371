"""Benchmarks: ratios in one alternating run, never times alone. `make bench` runs them all."""
