"""The gateway's own database: `migrate.upgrade` makes it at start, `database.Database` reads and writes it."""
