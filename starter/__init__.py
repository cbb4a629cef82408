"""Talking to failback from outside: `starter.client` for services, `starter.cli` for people.

Nothing is imported here, so that `failback --help` loads no Temporal core.
"""
