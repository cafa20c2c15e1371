"""The simulated clusters of a demo: what is kept of one whose start was interrupted."""

from pathlib import Path

from simulator.fleet import ClusterPlan, FleetCluster


async def test_a_world_without_its_past_is_not_kept(tmp_path: Path) -> None:
    """Else the next start goes on with it, and its past stays half written for ever."""
    plan = ClusterPlan(
        name="east", seed=1, workloads=5, rate=0.0, folder=str(tmp_path), is_kept=True
    )
    cluster = FleetCluster(plan)
    await cluster.build()
    await cluster.close()
    again = FleetCluster(plan)
    await again.build()
    await again.close()
    assert again.is_new
