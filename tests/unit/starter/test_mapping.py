"""Options of the command line become requests, and mistakes become sentences."""

from __future__ import annotations

import argparse
from datetime import timedelta

import pytest

from failback.contracts.requests import Request
from failback.contracts.start import DiskMapping, StartRequest
from failback.contracts.words import GuestTimeoutPolicy, ReplicaContent
from starter import mapping, values
from starter.arguments import parser
from starter.errors import ClientError


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ("", {}),
        ("--no-power-on", {"power_on_target": False}),
        ("--no-protect-target", {"protect_target": False}),
        ("--no-tracking", {"enable_tracking": False}),
        ("--accept-target-overwrite", {"accept_target_overwrite": True}),
        ("--accept-suspended", {"accept_suspended": True}),
        ("--guest-timeout 1h30m", {"guest_timeout": timedelta(minutes=90)}),
        ("--on-guest-timeout undo", {"on_guest_timeout": GuestTimeoutPolicy.UNDO}),
        ("--no-auto-retry", {"auto_retry": False}),
        ("--grow-target", {"grow_target": True}),
        ("--verify-whole-disk", {"verify_whole_disk": True}),
        ("--accept-pair scsi0:1", {"accept_pair": ("scsi0:1",)}),
        ("--expected-change-percent 5", {"expected_change_percent": 5}),
        (
            "--disk-map scsi0:1=sata0:0 --disk-map scsi0:2=scsi1:0",
            {
                "disk_map": (
                    DiskMapping(replica="scsi0:1", target="sata0:0"),
                    DiskMapping(replica="scsi0:2", target="scsi1:0"),
                )
            },
        ),
        ("--leave-behind scsi0:2 --leave-behind nvme0:1", {"leave_behind": ("scsi0:2", "nvme0:1")}),
        ("--by bob --reason drill", {"by": "bob", "reason": "drill"}),
    ],
)
def test_start(options: str, changed: dict[str, object]) -> None:
    args = parser().parse_args(["start", "web01", *options.split()])
    expected = StartRequest(replica="web01", by="ann").model_copy(update=changed)
    assert mapping.start_request(args, "ann") == expected


def test_every_field_of_the_start_request_has_an_option() -> None:
    built = set(mapping.START_FIELDS)
    assert built == set(StartRequest.model_fields)


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("commit web01", {}),
        ("commit web01 --request-id t-1 --reason ok", {"request_id": "t-1", "reason": "ok"}),
        ("pause web01 --by bob", {"by": "bob"}),
        ("retry web01 --attest-off dr:vm-1", {"attest_off": ("dr:vm-1",)}),
        ("undo web01 --power-on-replica", {"power_on_replica": True}),
        ("undo web01 --no-power-on-replica", {"power_on_replica": False}),
        ("undo web01 --replica-content keep", {"replica_content": ReplicaContent.KEEP}),
        ("undo web01 --accept-target-not-restored", {"accept_target_not_restored": True}),
    ],
)
def test_requests(line: str, changed: dict[str, object]) -> None:
    args = parser().parse_args(line.split())
    assert mapping.request(args, "ann") == Request(by="ann").model_copy(update=changed)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("start Web01", "'Web01' is not a replica key"),
        ("start web01 --disk-map scsi0:1", "The value of --disk-map does not fit"),
        ("start web01 --expected-change-percent 101", "of --expected-change-percent does not fit"),
        (f"start web01 --by {'x' * 3000}", "The value of --by does not fit"),
        (f"commit web01 --request-id {'x' * 300}", "The value of --request-id does not fit"),
    ],
)
def test_values_that_do_not_fit(line: str, sentence: str) -> None:
    args = parser().parse_args(line.split())
    build = mapping.start_request if args.name == "start" else mapping.request
    with pytest.raises(ClientError, match=sentence):
        build(args, "ann")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("15m", 900), ("15min", 900), ("1h30m", 5400), ("2d", 172800)]
)
def test_duration(text: str, seconds: int) -> None:
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "5x", "-5m"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a duration such as 15m"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [("dr:web01", ("dr", "web01")), ("dr:/DC/vm/a:b", ("dr", "/DC/vm/a:b"))],
)
def test_place(text: str, place: tuple[str, str]) -> None:
    assert values.place(text) == place


@pytest.mark.parametrize("text", ["web01", ":web01", "dr:", ""])
def test_not_a_place(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not SITE:NAME_OR_PATH"):
        values.place(text)
