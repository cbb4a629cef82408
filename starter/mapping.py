"""Options of the command line as requests on the wire."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from failback.contracts.base import Contract
from failback.contracts.requests import Request
from failback.contracts.start import StartRequest
from starter.describe import checked_key
from starter.errors import InputInvalid

C = TypeVar("C", bound=Contract)


def start_request(args: argparse.Namespace, user: str) -> StartRequest:
    """The start request; KeyInvalid, InputInvalid."""
    checked_key(args.key)
    return _built(StartRequest, **{name: read(args, user) for name, read in START_FIELDS.items()})


def request(args: argparse.Namespace, user: str) -> Request:
    """Body of commit, undo, retry, pause or resume; KeyInvalid, InputInvalid.

    Options that the command does not have keep the defaults of the contract.
    """
    checked_key(args.key)
    given = {name: getattr(args, name) for name in UNDO_OPTIONS if hasattr(args, name)}
    return _built(
        Request, request_id=args.request_id, by=_by(args, user), reason=args.reason, **given
    )


START_FIELDS: dict[str, Callable[[argparse.Namespace, str], Any]] = {
    "replica": lambda args, user: args.key,
    "destination": lambda args, user: args.destination,
    "switch": lambda args, user: args.switch,
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
    "plan_hash": lambda args, user: getattr(args, "plan_hash", ""),
    "by": lambda args, user: _by(args, user),
    "reason": lambda args, user: args.reason,
}
"""How each field of the start request is read from the command line."""

UNDO_OPTIONS = ("power_on_replica", "replica_content", "attest_off", "accept_target_not_restored")


def _mapping(text: str) -> dict[str, str]:
    replica, _, target = text.partition("=")
    return {"replica": replica.strip(), "target": target.strip()}


def _by(args: argparse.Namespace, user: str) -> str:
    return user if args.by is None else str(args.by)


def _built(kind: type[C], **values: Any) -> C:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputInvalid(f"The value of {option} does not fit: {first['msg']}.") from None
