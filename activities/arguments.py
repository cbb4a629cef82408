"""Reads what an activity is given, under the guard of the edge.

Left to the SDK, an argument that this worker cannot read fails before any code of ours runs: it is
tried again for ever, under nobody's patience, and no person hears of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio import activity
from temporalio.common import RawValue

from failback.contracts.base import Contract, complaint
from failback.contracts.operations import StepCall
from failback.errors import VersionMismatch
from workflows.operations import Operation

I = TypeVar("I", bound=StepCall)  # noqa: E741 - the conventional name of an input type
C = TypeVar("C", bound=Contract)


def raw(run: Callable[..., Any], operation: Operation[Any, Any]) -> None:
    """Let the SDK hand the one argument over as it came. Another number of arguments, which it
    reads by itself, is taken too, so that it becomes our error."""
    parameter = inspect.Parameter(
        "argument", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=RawValue
    )
    run.__annotations__ = {"argument": RawValue, "return": operation.result}
    run.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]


def read(operation: Operation[I, Any], given: Sequence[Any]) -> I:
    """The argument as the operation declares it; VersionMismatch when it does not fit."""
    if len(given) != 1:
        raise _mismatch(operation, f"{len(given)} arguments instead of one")
    try:
        return _decoded(given[0], operation.argument)
    except ValidationError as error:
        place, why = complaint(error)
        raise _mismatch(operation, f"{place}: {why}") from error
    except Exception as error:
        # A converter may raise anything, and what it says may quote the argument.
        raise _mismatch(operation, type(error).__name__) from error


def head_of(given: Sequence[Any]) -> StepCall | None:
    """What every argument begins with, which may fit where the rest does not."""
    try:
        return _decoded(given[0], StepCall)
    except Exception:  # it is about people's comfort only, and the trouble itself is told already
        return None


def _decoded(value: Any, kind: type[C]) -> C:
    if not isinstance(value, RawValue):
        # Called without a wire in between.
        return kind.model_validate(value)
    decoded: C = activity.payload_converter().from_payload(value.payload, kind)
    return decoded


def _mismatch(operation: Operation[Any, Any], why: str) -> VersionMismatch:
    return VersionMismatch(
        f"This worker does not understand what the run asks of {operation.name} ({why}): the run "
        "and the worker are of versions that do not fit each other.",
        "Bring all workers to one version that fits the run, then send retry.",
    )
