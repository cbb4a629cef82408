"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORD, TEXT, BLOB, NUMBER, BIG, FLAG = (
    sa.String(),
    sa.Text(),
    sa.LargeBinary(),
    sa.Integer(),
    sa.BigInteger(),
    sa.Boolean(),
)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """In the order of the foreign keys; constraints are named by the tables' convention."""
    _replicas()
    _runs()
    _restore_points_and_jobs()
    _locks()
    _ledger()


def downgrade() -> None:
    """Not offered: a catalog is restored from a backup."""
    raise NotImplementedError


def _column(name: str, type_: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def _maybe(name: str, type_: Any) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=True)


def _key(*columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns)


def _refers(column: str, to: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [to])


def _index(table: str, column: str) -> None:
    op.create_index(op.f(f"ix_{table}_{column}"), table, [column])


def _replicas() -> None:
    op.create_table("site", _column("name", WORD), _column("vcenter_uuid", WORD), _key("name"))
    op.create_table(
        "vm",
        _column("id", NUMBER),
        *(_column(name, WORD) for name in ("site", "vcenter_uuid", "moref", "name")),
        _column("instance_uuid", WORD),
        _column("bios_uuid", WORD),
        _column("path", TEXT),
        _refers("site", "site.name"),
        _key("id"),
        sa.UniqueConstraint("site", "vcenter_uuid", "moref"),
    )
    op.create_table(
        "replica",
        _column("key", WORD),
        _column("state", WORD),
        _column("replica_vm_id", NUMBER),
        _column("source_vm_id", NUMBER),
        _maybe("held_by", WORD),
        _column("updated_at", TIME),
        _column("revision", NUMBER),
        _refers("replica_vm_id", "vm.id"),
        _refers("source_vm_id", "vm.id"),
        _key("key"),
        sa.UniqueConstraint("replica_vm_id"),
    )
    _index("replica", "source_vm_id")


def _runs() -> None:
    op.create_table(
        "run",
        _column("run_id", WORD),
        _column("workflow_id", WORD),
        _column("replica_key", WORD),
        _column("destination", WORD),
        _column("phase", WORD),
        _maybe("outcome", WORD),
        _column("started_at", TIME),
        _maybe("committed_at", TIME),
        _maybe("ended_at", TIME),
        _column("request", TEXT),
        _maybe("report", TEXT),
        _column("by", WORD),
        _column("reason", TEXT),
        _refers("replica_key", "replica.key"),
        _key("run_id"),
    )
    _index("run", "replica_key")
    op.create_table(
        "step",
        *(_column(name, WORD) for name in ("run_id", "step", "object", "mark")),
        _column("intent_at", TIME),
        _column("started_at", TIME),
        _maybe("finished_at", TIME),
        _column("attempts", NUMBER),
        _column("evidence", TEXT),
        _maybe("failing_since", TIME),
        _column("last_error", TEXT),
        _refers("run_id", "run.run_id"),
        _key("run_id", "step", "object"),
    )
    op.create_table(
        "alarm",
        _column("id", NUMBER),
        _column("run_id", WORD),
        _column("at", TIME),
        _column("last_at", TIME),
        _column("times", NUMBER),
        _column("code", WORD),
        _column("message", TEXT),
        _key("id"),
    )
    _index("alarm", "run_id")


def _restore_points_and_jobs() -> None:
    op.create_table(
        "restore_point",
        _column("id", NUMBER),
        _column("replica_key", WORD),
        _column("snapshot", WORD),
        _column("name", WORD),
        _column("created_at", TIME),
        _column("kind", WORD),
        _maybe("run_id", WORD),
        _refers("replica_key", "replica.key"),
        _refers("run_id", "run.run_id"),
        _key("id"),
    )
    _index("restore_point", "replica_key")
    op.create_table(
        "job",
        _column("name", WORD),
        _maybe("next_run", WORD),
        _column("running", FLAG),
        _key("name"),
    )
    op.create_table(
        "job_member",
        _column("job_name", WORD),
        _column("vm_id", NUMBER),
        _column("excluded", FLAG),
        _refers("job_name", "job.name"),
        _refers("vm_id", "vm.id"),
        _key("job_name", "vm_id"),
    )
    _index("job_member", "vm_id")


def _locks() -> None:
    op.create_table(
        "claim",
        _column("object", WORD),
        _column("run_id", WORD),
        _column("taken_at", TIME),
        _refers("run_id", "run.run_id"),
        _key("object"),
    )
    _index("claim", "run_id")
    op.create_table(
        "lease",
        _column("name", WORD),
        _column("epoch", BIG),
        _column("owner", WORD),
        _column("execution", WORD),
        _column("number", sa.Integer()),
        _column("attempt", sa.Integer()),
        _column("taken_at", TIME),
        _key("name"),
    )
    op.create_table(
        "mover_host",
        _column("machine_id", WORD),
        _column("host_id", WORD),
        _column("registered_at", TIME),
        _key("machine_id"),
    )


def _ledger() -> None:
    op.create_table(
        "ledger_plan",
        _column("plan_id", WORD),
        _column("disk_id", WORD),
        *(_column(name, TEXT) for name in ("source", "target", "base")),
        _column("capacity_bytes", BIG),
        _column("segment_bytes", BIG),
        _maybe("areas", BLOB),
        _column("epoch", BIG),
        _column("owner", WORD),
        _column("saved_at", TIME),
        _maybe("completed_at", TIME),
        _key("plan_id"),
    )
    _index("ledger_plan", "disk_id")
    op.create_table(
        "ledger_segment",
        _column("plan_id", WORD),
        _column("segment_no", BIG),
        *(_column(f"{name}_bytes", BIG) for name in ("examined", "different", "written", "zeroed")),
        _column("written", BLOB),
        _refers("plan_id", "ledger_plan.plan_id"),
        _key("plan_id", "segment_no"),
    )
