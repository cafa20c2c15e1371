"""The schema's role and revisions, for whoever reads and writes; `migrate` changes the schema.

Alembic is loaded on demand: it takes longer than the rest of this package together.
"""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

APP_ROLE = "watchbill_app"


def migration_config() -> "Config":
    """Where Alembic finds the revisions."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("watchbill.store.postgres") / "migrations"))
    config.set_main_option("recursive_version_locations", "true")
    return config


@cache
def known_revisions() -> tuple[str, ...]:
    """Of the schema, the present one first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(migration_config())
    return tuple(script.revision for script in scripts.walk_revisions())
