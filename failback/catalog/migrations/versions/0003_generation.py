"""Which execution of a run's workflow holds a lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Only additions: a worker of the version before can go on with them."""
    op.add_column("lease", sa.Column("run_id", sa.String(), nullable=False, server_default=""))
    op.add_column(
        "lease", sa.Column("generation", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Not offered: a catalog is restored from a backup."""
    raise NotImplementedError
