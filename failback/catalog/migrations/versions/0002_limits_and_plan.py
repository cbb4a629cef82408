"""The limits of a run's transfers, and the plan that it follows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Only additions: a worker of the version before can go on with them."""
    op.add_column("run", sa.Column("plan", sa.Text(), nullable=True))
    op.create_table(
        "run_limits",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.run_id"]),
        sa.PrimaryKeyConstraint("run_id"),
    )


def downgrade() -> None:
    """Not offered: a catalog is restored from a backup."""
    raise NotImplementedError
