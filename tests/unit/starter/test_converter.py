"""The converter: pydantic's for what has a type, and nothing lost where it has none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.contrib.pydantic import pydantic_data_converter

from failback.contracts.requests import Request
from failback.contracts.unreadable import Unreadable
from starter.converter import data_converter

OURS, PYDANTICS = data_converter.payload_converter, pydantic_data_converter.payload_converter
BROKEN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"by": "geheim\xff"}')
FOREIGN = Payload(metadata={"encoding": b"x/y"}, data=b"geheim")


@pytest.mark.parametrize("value", [None, {"by": "ann"}, Request(by="ann"), b"bytes", "\u00e4", 7])
def test_what_it_writes_and_reads_is_what_pydantics_does(value: Any) -> None:
    (payload,) = PYDANTICS.to_payloads([value])

    assert OURS.to_payloads([value]) == [payload]
    assert OURS.from_payloads([payload]) == PYDANTICS.from_payloads([payload])
    assert OURS.from_payload(payload, type(value)) == value


@pytest.mark.parametrize("hints", [None, [Any, Any, Any]])
def test_what_cannot_be_read_has_a_stand_in_where_it_may_be_anything(hints: Any) -> None:
    good = PYDANTICS.to_payloads([{"by": "ann"}])[0]

    read, broken, foreign = OURS.from_payloads([good, BROKEN, FOREIGN], hints)

    assert read == {"by": "ann"}
    assert isinstance(broken, Unreadable) and "invalid unicode code point" in broken.why
    assert foreign == Unreadable("its encoding is none that is known")
    assert "geheim" not in f"{broken}{foreign}"


def test_what_has_a_type_is_still_an_error() -> None:
    for kind in (Request, dict, str):
        with pytest.raises(ValidationError):
            OURS.from_payload(BROKEN, kind)
        with pytest.raises(KeyError):
            OURS.from_payload(FOREIGN, kind)
    assert OURS.from_payload(BROKEN, RawValue) == RawValue(BROKEN)
