"""The newest revisions of the schema; older ones lie in folders that are named after the span they hold.

Alembic follows `down_revision`, not folders: moving a file changes nothing for a database.
"""
