"""Optuna's tables in a new SQLite file: all of them or none."""

from __future__ import annotations

from functools import cache

import sqlalchemy as sql

TABLES = sql.text("SELECT COUNT(*) FROM sqlite_master")


def create_tables(engine: sql.Engine) -> None:
    """Create the tables in one transaction, unless there are some.

    Optuna creates them one by one. A process that is killed meanwhile would leave tables without their indices, which
    nothing creates later; then two studies could have one name.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if connection.execute(TABLES).scalar():
            return
        try:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            if not connection.execute(TABLES).scalar():  # another process may have been faster
                for statement in _statements():
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.invalidate()  # closes the file, which rolls back
            raise


@cache
def _statements() -> tuple[str, ...]:
    """Return the statements that create what Optuna creates."""
    import optuna

    storage = optuna.storages.RDBStorage("sqlite://")
    with storage.engine.connect() as connection:
        lines = tuple(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    storage.remove_session()
    storage.engine.dispose()
    return lines[1:-1]  # without its own transaction
