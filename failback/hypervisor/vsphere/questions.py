"""Questions of a VM: answered by the id of their message, never by their text, which is translated.

A question blocks the task that raised it until somebody answers. Its shape at the site: an id of
its own, messages with stable ids (`msg.uuid.altered`), and choices with a key and a label.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from failback.contracts.vm import VmIdentity
from failback.errors import OperationFailed
from failback.hypervisor.ports import Beat
from failback.hypervisor.vsphere import faults
from failback.hypervisor.vsphere.api import vmodl
from failback.hypervisor.vsphere.inventory import read_proven, vm_ref
from failback.hypervisor.vsphere.session import ReplyLost, Session

log = logging.getLogger(__name__)

UUID_ALTERED = "msg.uuid.altered"
MOVED: Mapping[str, str] = {UUID_ALTERED: "button.uuid.movedTheVM"}
"""Moved: UUIDs and addresses stay. That is what a VM is which a failback has just written."""

_KEYS = {"button.uuid.movedTheVM": "1"}
"""Keys of choices whose label a site has translated: 0 cancels, 1 moved, 2 copied."""
_ID = re.compile(r"msg(\.\w+)+")


def answer_question(
    session: Session, vm: VmIdentity, message_id: str, choice: str, beat: Beat
) -> bool:
    """Answer with a choice's label or key; False: the VM asks nothing (any more).

    Idempotent because the pending question is read first, and it is gone once answered.
    """
    question = _pending(session, vm, beat)
    if question is None:
        return False
    if message_id not in message_ids(question):
        raise OperationFailed(
            f"{vm} asks {_named(question)}, not {message_id}, so it was not answered.",
            "Look at the question and answer that one.",
            **_evidence(question),
        )
    key = key_of(question, choice)
    if key is None:
        raise OperationFailed(
            f"{_named(question)} of {vm} has no choice {choice}.",
            f"Choose one of: {choices(question)}.",
            **_evidence(question),
        )
    _send(session, vm, question, key, beat)
    return True


def answer_known(
    session: Session, vm: VmIdentity, question: Any, answers: Mapping[str, str], beat: Beat
) -> None:
    """Give the answer that is known for this question; OperationFailed where none is."""
    for message_id in message_ids(question):
        key = key_of(question, answers[message_id]) if message_id in answers else None
        if key is not None:
            log.info(
                "question answered",
                extra={"site": vm.site, "vm": vm.moref, "question": message_id, "choice": key},
            )
            _send(session, vm, question, key, beat)
            return
    raise OperationFailed(
        f"{vm} asks a question ({_named(question)}) and waits for the answer: "
        f"{' '.join(str(question.text).split())} Choices: {choices(question)}.",
        "Answer it in the vSphere Client, then retry.",
        **_evidence(question),
    )


def message_ids(question: Any) -> tuple[str, ...]:
    """Ids of the question's messages; older hosts put the id before the text."""
    told = tuple(str(message.id) for message in question.message or ())
    before = str(question.text or "").partition(":")[0].strip()
    return told or ((before,) if _ID.fullmatch(before) else ())


def key_of(question: Any, choice: str) -> str | None:
    """Key of the choice of this label or key, None when it is not offered."""
    offered = {str(info.key): str(info.label) for info in question.choice.choiceInfo}
    for key, label in offered.items():
        if choice in (label, key):
            return key
    stands_for = _KEYS.get(choice)
    return stands_for if stands_for is not None and set(offered) == {"0", "1", "2"} else None


def choices(question: Any) -> str:
    """For people: `0 Cancel, 1 button.uuid.movedTheVM`."""
    return ", ".join(f"{info.key} {info.label}" for info in question.choice.choiceInfo)


def _send(session: Session, vm: VmIdentity, question: Any, key: str, beat: Beat) -> None:
    try:
        session.mutate(vm_ref(vm), "AnswerVM", str(question.id), key, beat=beat)
    except ReplyLost:
        if _still(session, vm, question, beat):
            raise
    except vmodl.MethodFault as fault:
        # Somebody was faster: there is nothing to answer any more.
        if _still(session, vm, question, beat):
            doing = f"answer {_named(question)} of {vm}"
            raise faults.typed(fault, session.site, doing) from fault


def _still(session: Session, vm: VmIdentity, question: Any, beat: Beat) -> bool:
    pending = _pending(session, vm, beat)
    return pending is not None and pending.id == question.id


def _pending(session: Session, vm: VmIdentity, beat: Beat) -> Any:
    return read_proven(session, vm, ("runtime.question",), beat).get("runtime.question")


def _named(question: Any) -> str:
    return ", ".join(message_ids(question)) or f"question {question.id}"


def _evidence(question: Any) -> dict[str, str | int | None]:
    return {
        "message": ", ".join(message_ids(question)) or None,
        "question": str(question.id),
        "choices": choices(question),
    }
