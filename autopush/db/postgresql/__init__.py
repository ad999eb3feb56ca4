"""The store in PostgreSQL; see :mod:`autopush.db.postgresql.store`."""
