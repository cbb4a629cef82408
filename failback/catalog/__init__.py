"""Our own records: replicas, runs, steps, claims, leases and the ledger, over SQL.

Import the modules: `repository.Catalog`, `schema.migrate`, `ledger.SqlLedgerStore`. Nothing is
imported here, because the database libraries take half a second to load and only workers and the
commands that administer the catalog need them.
"""
