"""Messages are frozen, bounded, and decode when they are older or newer than the code."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from annotated_types import MaxLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from failback.contracts.base import Contract
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from workflows.facts import ChangeBase, Facts

CONTRACTS = Path(__file__).parents[2] / "failback" / "contracts"


def models() -> list[type[Contract]]:
    """Every model that crosses the wire."""
    for path in CONTRACTS.glob("*.py"):
        importlib.import_module(f"failback.contracts.{path.stem}")
    return sorted(
        {*_below(Contract), Facts, ChangeBase}, key=lambda model: (model.__module__, model.__name__)
    )


def _below(model: type[Contract]) -> Iterator[type[Contract]]:
    for child in model.__subclasses__():
        yield child
        yield from _below(child)


def unbounded(annotation: Any, bounded: bool) -> Iterator[str]:
    """Parts of a type that could grow without limit."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        yield from unbounded(arguments[0], bounded or _limits(arguments[1:]))
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from unbounded(argument, bounded)
    elif origin is tuple:
        if not bounded:
            yield "tuple"
        for argument in arguments:
            if argument is not Ellipsis:
                yield from unbounded(argument, False)
    elif annotation in (bytes, list, dict, Any) or origin in (list, dict, set, frozenset):
        yield str(annotation)
    elif annotation is str and not bounded:
        yield "str"


def _limits(metadata: Any) -> bool:
    return any(
        isinstance(item, MaxLen)
        or getattr(item, "max_length", None) is not None
        or getattr(item, "pattern", None) is not None
        for item in metadata
    )


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_a_message_is_frozen_and_bounded(model: type[Contract]) -> None:
    assert model.model_config["frozen"] is True
    for name, field in model.model_fields.items():
        assert isinstance(field, FieldInfo)
        parts = list(unbounded(field.annotation, _limits(field.metadata)))
        assert not parts, f"{model.__name__}.{name} is unbounded: {parts}"


def test_a_start_request_needs_only_the_replica_and_ignores_what_it_does_not_know() -> None:
    request = StartRequest.model_validate({"replica": "web01", "from_the_future": 1})

    assert request.protect_target is True
    assert StartRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize("key", ["Web01", "", "-web", "a" * 64, "a/b", "a b", "é"])
def test_a_key_that_is_not_safe_in_ids_and_file_names_is_refused(key: str) -> None:
    with pytest.raises(ValidationError):
        StartRequest(replica=key)


def test_every_field_of_a_request_is_optional() -> None:
    assert Request.model_validate({}) == Request()


def test_a_hook_that_would_never_be_called_is_refused() -> None:
    hook = {"name": "dns", "when": "after", "step": "await_decision"}
    with pytest.raises(ValidationError, match="would never be called"):
        StartRequest.model_validate({"replica": "web01", "hooks": [hook]})
