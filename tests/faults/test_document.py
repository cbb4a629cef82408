"""docs/faults.md says what was seen, no more and no less."""

from __future__ import annotations

import pytest

from tests.faults.matrix import Matrix, documented


def test_the_document_says_what_was_seen(pytestconfig: pytest.Config, matrix: Matrix) -> None:
    said = documented()

    assert {name: row.document for name, row in matrix.rows.items()} == {
        name: said.get(name) for name in matrix.rows
    }
    if whole_run(pytestconfig):
        assert set(said) == set(matrix.rows), "the document tells of faults that nobody tests"


def whole_run(config: pytest.Config) -> bool:
    """Whether no test of this folder was left out."""
    narrowed = config.getoption("keyword") or config.getoption("lf", default=False)
    return not narrowed and not any("::" in arg or arg.endswith(".py") for arg in config.args)
