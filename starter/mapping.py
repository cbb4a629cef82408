"""Options of the command line as requests on the wire."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from failback.contracts.base import WHOLE, Contract, complaint
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from failback.contracts.words import SwitchMode
from starter.arguments_life import UNSAID
from starter.describe import checked_key
from starter.errors import InputInvalid

C = TypeVar("C", bound=Contract)


def start_request(args: argparse.Namespace, user: str) -> StartRequest:
    """The start request; KeyInvalid, InputInvalid."""
    checked_key(args.key)
    return _built(StartRequest, **{name: read(args, user) for name, read in START_FIELDS.items()})


def request(args: argparse.Namespace, user: str) -> Request:
    """Body of commit, undo, retry, pause or resume; KeyInvalid, InputInvalid.

    Options that the command does not have, or that were not said, are not sent: what an earlier
    request chose stays.
    """
    checked_key(args.key)
    given = {name: getattr(args, name) for name in OPTIONS if hasattr(args, name)}
    if args.name == "reschedule":
        given["switch"] = _said(switch_policy(args), "reschedule", "--switch or --switch-at")
    if args.name == "adjust":
        given |= _adjusted(args)
    given |= {name: getattr(args, name) for name in ("request_id", "reason") if getattr(args, name)}
    return _built(Request, by=_by(args, user), **given)


START_FIELDS: dict[str, Callable[[argparse.Namespace, str], Any]] = {
    "replica": lambda args, user: args.key,
    "destination": lambda args, user: args.destination,
    "recovered": lambda args, user: args.recovered,
    "new_vm": lambda args, user: _new_vm(args),
    "old_source": lambda args, user: args.old_source,
    "switch": lambda args, user: switch_policy(args) or {},
    "finalize": lambda args, user: finalize_policy(args) or {},
    "limits": lambda args, user: {"bandwidth_bytes_per_s": args.bandwidth, "window": args.window},
    "hooks": lambda args, user: [_hook(text) for text in args.hook],
    "approvals": lambda args, user: args.approvals,
    "approval_expiry": lambda args, user: args.approval_expiry or timedelta(hours=4),
    "plan_hash": lambda args, user: getattr(args, "plan_hash", ""),
    "carry_over": lambda args, user: args.carry_over,
    "power_on_target": lambda args, user: not args.no_power_on,
    "protect_target": lambda args, user: not args.no_protect_target,
    "enable_tracking": lambda args, user: not args.no_tracking,
    "accept_target_overwrite": lambda args, user: args.accept_target_overwrite,
    "accept_suspended": lambda args, user: args.accept_suspended,
    "guest_timeout": lambda args, user: args.guest_timeout,
    "on_guest_timeout": lambda args, user: args.on_guest_timeout,
    "auto_retry": lambda args, user: not args.no_auto_retry,
    "grow_target": lambda args, user: args.grow_target,
    "verify_whole_disk": lambda args, user: args.verify_whole_disk,
    "leave_behind": lambda args, user: args.leave_behind,
    "disk_map": lambda args, user: [_mapping(text) for text in args.disk_map],
    "accept_pair": lambda args, user: args.accept_pair,
    "expected_change_percent": lambda args, user: args.expected_change_percent,
    "by": lambda args, user: _by(args, user),
    "reason": lambda args, user: args.reason,
}
"""How each field of the start request is read from the command line."""

OPTIONS = (
    "power_on_replica",
    "replica_content",
    "attest_off",
    "rebase_target",
    "accept_target_not_restored",
    "ignore_budget",
    "of",
)
"""Options of requests that have the names of their fields."""


def switch_policy(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the switch; a time alone means scheduled."""
    mode = args.switch or (SwitchMode.SCHEDULED if args.switch_at else None)
    return _given(
        mode=mode,
        at=args.switch_at,
        resync_interval=args.resync_interval,
        downtime_budget=args.downtime_budget,
        on_overrun=args.on_overrun,
    )


def finalize_policy(args: argparse.Namespace) -> dict[str, Any]:
    """What was said of the decision."""
    return _given(
        mode=args.finalize,
        after=args.finalize_after,
        boot_grace=args.boot_grace,
        probes=args.probe or None,
        accept_loss_of_production_writes=args.accept_loss_of_production_writes or None,
    )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _said(policy: dict[str, Any], command: str, options: str) -> dict[str, Any]:
    if not policy:
        raise InputInvalid(f"{command} says nothing new; give it {options}.")
    return policy


def _adjusted(args: argparse.Namespace) -> dict[str, Any]:
    """What adjust changes: only what was said."""
    limits, finalize = (args.bandwidth, args.window), finalize_policy(args)
    if limits == (UNSAID, UNSAID) and not finalize:
        raise InputInvalid("adjust says nothing new; give it --bandwidth, --window or --finalize.")
    found: dict[str, Any] = {"finalize": finalize} if finalize else {}
    if limits != (UNSAID, UNSAID):
        names = ("bandwidth_bytes_per_s", "window")
        found["limits"] = {n: v for n, v in zip(names, limits, strict=True) if v is not UNSAID}
    return found


def _new_vm(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "site": args.new_site,
        "name": args.new_name,
        "keep_macs": args.keep_macs,
        "keep_bios_uuid": not args.no_keep_bios_uuid,
        "placement": {
            "host": args.host,
            "cluster": args.cluster,
            "pool": args.pool,
            "folder": args.folder,
            "datastore": args.datastore,
            "storage_policy": args.storage_policy,
            "disks": [{"address": a, "datastore": d} for a, d in args.disk_datastore],
            "networks": [{"replica": r, "target": t} for r, t in args.network],
        },
    }


def _hook(text: str) -> dict[str, str]:
    parts = text.split(":")
    names = ("when", "step", "name", "on_failure")
    return dict(zip(names, parts, strict=False)) if len(parts) <= len(names) else {"name": text}


def _mapping(text: str) -> dict[str, str]:
    replica, _, target = text.partition("=")
    return {"replica": replica.strip(), "target": target.strip()}


def _by(args: argparse.Namespace, user: str) -> str:
    return user if args.by is None else str(args.by)


SINGULAR = {"hooks": "hook", "limits": "bandwidth", "new_vm": "new_name"}
"""Options that are not called as their field is."""


def _built(kind: type[C], **values: Any) -> C:
    try:
        return kind(**values)
    except ValidationError as error:
        place, why = complaint(error)
        field = place.partition(".")[0]
        if field == WHOLE:
            raise InputInvalid(f"These options do not fit together: {why}.") from None
        option = "--" + SINGULAR.get(field, field).replace("_", "-")
        raise InputInvalid(f"The value of {option} does not fit: {why}.") from None
