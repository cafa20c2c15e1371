"""All drills by name."""

import functools
from collections.abc import Awaitable, Callable

from drills import databases
from drills.agents import earlier_agents
from drills.failover import patroni
from drills.rolling import pooled_restart, rolling_restart
from drills.standby import standby_reads
from drills.versions import BETWEEN, FIRST, rolling_upgrade

ALL: dict[str, Callable[[], Awaitable[str]]] = {
    "rolling restart of two servers behind HAProxy": functools.partial(
        rolling_restart, "HAProxy", 2
    ),
    "rolling restart of three servers behind HAProxy": functools.partial(
        rolling_restart, "HAProxy", 3
    ),
    "rolling restart of two servers behind nginx": functools.partial(rolling_restart, "nginx", 2),
    "rolling restart of two servers behind HAProxy, before PgBouncer with three connections": (
        pooled_restart
    ),
    "rolling upgrade from the first version": functools.partial(rolling_upgrade, FIRST),
    "rolling upgrade from a version in between": functools.partial(rolling_upgrade, BETWEEN),
    "agents of earlier versions": earlier_agents,
    "database read-only": databases.read_only,
    "database killed": databases.killed,
    "database without connections": databases.no_connection_left,
    "primary killed under Patroni": patroni,
    "standby behind, gone and back": standby_reads,
    "disk full under the embedded database": databases.disk_full,
    "restore to a point in time": databases.point_in_time,
}
