"""Options of the command line become requests, and mistakes become sentences."""

from __future__ import annotations

import argparse
from datetime import timedelta

import pytest

from failback.contracts.requests import Request
from failback.contracts.start import DiskMapping, StartRequest
from failback.contracts.words import (
    CarryOver,
    Destination,
    GuestTimeoutPolicy,
    OldSource,
    ReplicaContent,
)
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
        ("--switch manual", {"switch": {"mode": "manual"}}),
        (
            "--switch-at 2026-11-24T22:00+01:00 --resync-interval 5m --downtime-budget 2m",
            {
                "switch": {
                    "mode": "scheduled",
                    "at": "2026-11-24T21:00Z",
                    "resync_interval": timedelta(minutes=5),
                    "downtime_budget": timedelta(minutes=2),
                }
            },
        ),
        (
            "--finalize auto_commit --finalize-after 2h --probe tcp:web01:443 --probe tools "
            "--probe https://web01/health --probe command:check",
            {
                "finalize": {
                    "mode": "auto_commit",
                    "after": timedelta(hours=2),
                    "probes": (
                        {"kind": "tcp", "address": "web01:443"},
                        {"kind": "tools"},
                        {"kind": "http", "address": "https://web01/health"},
                        {"kind": "command", "command": "check"},
                    ),
                }
            },
        ),
        (
            "--bandwidth 1.5M --window 22:00-06:00",
            {
                "limits": {
                    "bandwidth_bytes_per_s": 3 << 19,
                    "window": {"begin": "22:00", "end": "06:00"},
                }
            },
        ),
        (
            "--destination recovered --recovered production:web01-new --old-source refuse",
            {
                "destination": Destination.RECOVERED,
                "recovered": "production:web01-new",
                "old_source": OldSource.REFUSE,
            },
        ),
        (
            "--destination new --new-name web01-b --datastore fast --disk-datastore scsi0:1=slow "
            "--network dr-net=prod-net --keep-macs",
            {
                "destination": Destination.NEW,
                "new_vm": {
                    "name": "web01-b",
                    "keep_macs": True,
                    "placement": {
                        "datastore": "fast",
                        "disks": ({"address": "scsi0:1", "datastore": "slow"},),
                        "networks": ({"replica": "dr-net", "target": "prod-net"},),
                    },
                },
            },
        ),
        (
            "--hook after:power_on_target:dns:continue --approvals 2 --plan-hash 1abc "
            "--carry-over cpu",
            {
                "hooks": (
                    {
                        "name": "dns",
                        "when": "after",
                        "step": "power_on_target",
                        "on_failure": "continue",
                    },
                ),
                "approvals": 2,
                "plan_hash": "1abc",
                "carry_over": (CarryOver.CPU,),
            },
        ),
    ],
)
def test_start(options: str, changed: dict[str, object]) -> None:
    args = parser().parse_args(["start", "web01", *options.split()])
    expected = StartRequest.model_validate({"replica": "web01", "by": "ann", **changed})
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
        ("switch-over web01 --ignore-budget", {"ignore_budget": True}),
        ("reschedule web01 --switch manual", {"switch": {"mode": "manual"}}),
        ("approve web01 commit-3", {"of": "commit-3"}),
        ("adjust web01 --bandwidth none", {"limits": {}}),
        (
            "adjust web01 --finalize auto_commit",
            {"finalize": {"mode": "auto_commit"}},
        ),
    ],
)
def test_requests(line: str, changed: dict[str, object]) -> None:
    args = parser().parse_args(line.split())
    expected = Request.model_validate({"by": "ann", **changed})
    assert mapping.request(args, "ann") == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("undo web01 --replica-content keep", {"by", "replica_content"}),
        ("undo web01 --reason why", {"by", "reason"}),
        ("retry web01 --request-id t-1", {"by", "request_id"}),
        ("switch-over web01", {"by"}),
    ],
)
def test_what_was_not_said_is_not_sent(line: str, said: set[str]) -> None:
    # It would erase what an earlier request has chosen.
    assert mapping.request(parser().parse_args(line.split()), "ann").model_fields_set == said


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("start Web01", "'Web01' is not a replica key"),
        ("start web01 --disk-map scsi0:1", "The value of --disk-map does not fit"),
        ("start web01 --expected-change-percent 101", "of --expected-change-percent does not fit"),
        ("start web01 --finalize auto_undo", "The value of --finalize does not fit"),
        ("start web01 --switch scheduled", "The value of --switch does not fit"),
        ("start web01 --hook never:commit:x", "The value of --hook does not fit"),
        ("reschedule web01", "reschedule says nothing new"),
        ("adjust web01", "adjust says nothing new"),
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
