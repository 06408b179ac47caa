"""The gateway's own databases and counters: `migrate.upgrade` makes the tables, `Database` reads and writes them."""
