"""What a mutation is: the kind of task it starts, how it is sent, how one sees that it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from failback.hypervisor.vsphere.api import Ref
from failback.hypervisor.vsphere.properties import Read


class Operation(Enum):
    """Kinds of task, by every description id and method name sites report for them."""

    POWER_ON = ("virtualmachine.poweron", "poweronvm")
    POWER_OFF = ("virtualmachine.poweroff", "poweroffvm")
    CREATE_SNAPSHOT = (
        "virtualmachine.createsnapshot",
        "virtualmachine.createsnapshotex",
        "createsnapshot",
        "createsnapshotex",
    )
    REVERT = (
        "vm.snapshot.revert",
        "virtualmachinesnapshot.revert",
        "virtualmachine.reverttosnapshot",
        "virtualmachine.revertsnapshot",
        "reverttosnapshot",
    )
    REMOVE_SNAPSHOT = (
        "vm.snapshot.remove",
        "virtualmachinesnapshot.remove",
        "virtualmachine.removesnapshot",
        "removesnapshot",
    )
    CONSOLIDATE = (
        "virtualmachine.consolidate",
        "virtualmachine.consolidatedisks",
        "consolidatevmdisks",
    )
    CREATE_VM = ("folder.createvm", "createvm")
    REGISTER_VM = ("folder.registervm", "registervm")
    DESTROY = ("virtualmachine.destroy", "managedentity.destroy", "destroy")
    RENAME = ("virtualmachine.rename", "managedentity.rename", "rename")
    MOVE = ("folder.moveintofolder", "folder.moveinto", "moveintofolder")
    RECONFIGURE = ("virtualmachine.reconfigure", "virtualmachine.reconfigvm", "reconfigvm")

    def fits(self, task: Read) -> bool:
        """Whether the task is of this kind."""
        said = {str(task.get("info.descriptionId") or ""), str(task.get("info.name") or "")}
        return any(
            text.lower().removeprefix("vim.").removesuffix("_task") in self.value for text in said
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One mutation of one VM, ready to be made true."""

    operation: Operation
    doing: str
    """A clause for messages: `power on`."""
    call: Callable[[], tuple[Ref, str, tuple[Any, ...]]]
    """Target, method and arguments, built anew for every attempt."""
    done: Callable[[], bool] | None
    """Reads whether the wanted end is reached; None where the state cannot tell."""
    after: tuple[Operation, ...] = ()
    """Running tasks of these kinds are waited for before anything is sent."""
    answers: Mapping[str, str] = field(default_factory=dict)
    """Choices for questions that may be answered without a person, by message id."""
