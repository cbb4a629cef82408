"""Tasks against a scripted site: questions, vanished tasks, consolidation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from failback.contracts.vm import VmIdentity
from failback.errors import FailbackError, LeaseLost, OperationFailed, SiteBusy, VmNotFound
from failback.hypervisor.vsphere import questions, snapshots
from failback.hypervisor.vsphere.api import ref, vim, vmodl
from failback.hypervisor.vsphere.jobs import Job, Operation
from failback.hypervisor.vsphere.session import ReplyLost, Session
from failback.hypervisor.vsphere.tasks import Polling, Tasks

VM = VmIdentity(
    site="dr",
    vcenter_uuid="v",
    moref="vm-1",
    name="web",
    instance_uuid="i",
    bios_uuid="b",
    path="p",
)


@dataclass
class Scripted:
    """A session whose objects are dictionaries of properties and whose mutations are functions."""

    objects: dict[str, dict[str, Any]]
    mutations: dict[str, Callable[[], Any]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    site: str = "dr"

    def login(self, beat: Any = None) -> Any:
        return SimpleNamespace(content=SimpleNamespace(propertyCollector=None))

    def vcenter_uuid(self) -> str:
        return "v"

    def read(self, target: Any, method: str, *args: Any, beat: Any = None) -> Any:
        assert method == "RetrievePropertiesEx"
        (spec,) = args[0]
        todo = [entry.obj for entry in spec.objectSet]
        found = []
        for entry in spec.objectSet:
            for step in entry.selectSet or ():
                todo += self.objects[entry.obj._moId].get(step.path) or []
        paths = {entry.type: set(entry.pathSet) for entry in spec.propSet}
        for obj in todo:
            if obj._moId not in self.objects:
                raise vmodl.fault.ManagedObjectNotFound(obj=obj)
            if type(obj) in paths:
                values = self.objects[obj._moId]
                found.append(
                    SimpleNamespace(
                        obj=obj,
                        missingSet=[],
                        propSet=[
                            SimpleNamespace(name=name, val=value)
                            for name, value in values.items()
                            if name in paths[type(obj)] and value is not None
                        ],
                    )
                )
        return SimpleNamespace(objects=found, token=None)

    def mutate(self, target: Any, method: str, *args: Any, beat: Any) -> Any:
        beat()
        self.sent.append(method)
        return self.mutations[method]()


TASK = ref("Task", "task-1")


def site(**vm: Any) -> Scripted:
    return Scripted({"vm-1": {"config.instanceUuid": "i", "recentTask": [], **vm}})


def tasks(scripted: Scripted) -> Tasks:
    polling = Polling(
        first_s=0.5, lost_look_s=2, done_look_s=2, held_s=1, sleep=lambda s: None, clock=Clock()
    )
    return Tasks(cast("Session", scripted), polling)


class Clock:
    """Half a second passes with every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def beat() -> None:
    """Nothing to renew."""


def power_on(scripted: Scripted) -> Job:
    return Job(
        Operation.POWER_ON,
        "power on",
        lambda: (ref("VirtualMachine", "vm-1"), "PowerOnVM_Task", (None,)),
        lambda: scripted.objects["vm-1"].get("runtime.powerState") == "poweredOn",
    )


def test_a_vanished_task_means_look_at_the_state() -> None:
    scripted = site()

    def send() -> Any:
        if len(scripted.sent) == 2:
            scripted.objects["vm-1"]["runtime.powerState"] = "poweredOn"
        return TASK  # never in the list of objects: purged before it could be read

    scripted.mutations["PowerOnVM_Task"] = send
    assert tasks(scripted).make_true(VM, power_on(scripted), beat) is True
    assert len(scripted.sent) == 2


def test_a_vm_that_goes_while_its_task_is_watched_is_not_found() -> None:
    scripted = site()
    scripted.objects["task-1"] = {"info.state": "running"}

    def send() -> Any:
        del scripted.objects["vm-1"]
        return TASK

    scripted.mutations["PowerOnVM_Task"] = send
    with pytest.raises(VmNotFound, match="web"):
        tasks(scripted).make_true(VM, power_on(scripted), beat)


def test_success_without_the_state_is_not_success() -> None:
    scripted = site()
    scripted.objects["task-1"] = {"info.state": "success"}
    scripted.mutations["PowerOnVM_Task"] = lambda: TASK
    with pytest.raises(SiteBusy, match="does not show it"):
        tasks(scripted).make_true(VM, power_on(scripted), beat)


def test_a_lost_reply_without_trace_stays_unknown_and_is_not_resent() -> None:
    scripted = site()

    def lose() -> Any:
        raise ReplyLost("No answer.")

    scripted.mutations["PowerOnVM_Task"] = lose
    with pytest.raises(ReplyLost) as caught:
        tasks(scripted).make_true(VM, power_on(scripted), beat)
    assert caught.value.retryable
    assert caught.value.type == "SiteUnreachable"
    assert scripted.sent == ["PowerOnVM_Task"]


def test_a_new_task_of_the_same_kind_is_the_trace_of_a_lost_reply() -> None:
    scripted = site()

    def lose() -> Any:
        scripted.objects["task-1"] = {
            "info.state": "error",
            "info.descriptionId": "VirtualMachine.powerOn",
            "info.error": vim.fault.NoDiskSpace(datastore="ds", file="x"),
        }
        scripted.objects["vm-1"]["recentTask"] = [TASK]
        raise ReplyLost("No answer.")

    scripted.mutations["PowerOnVM_Task"] = lose
    with pytest.raises(OperationFailed, match="NoDiskSpace"):
        tasks(scripted).make_true(VM, power_on(scripted), beat)
    assert len(scripted.sent) == 1


def test_a_lost_lease_ends_the_wait() -> None:
    scripted = site()
    scripted.objects["task-1"] = {"info.state": "running"}
    scripted.mutations["PowerOnVM_Task"] = lambda: TASK
    beats = 0

    def until_lost() -> None:
        nonlocal beats
        beats += 1
        if beats > 3:
            raise LeaseLost("A newer attempt has taken over.")

    with pytest.raises(LeaseLost):
        tasks(scripted).make_true(VM, power_on(scripted), until_lost)


@pytest.mark.parametrize(
    ("answer", "still_needed"),
    [(None, False), (vmodl.fault.MethodNotFound(method="x"), True), (vim.fault.FileLocked(), True)],
)
def test_disks_left_unmerged_are_consolidated_once(
    answer: Exception | None, still_needed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    node = SimpleNamespace(
        snapshot=ref("vm.Snapshot", "snapshot-1"),
        name="failback%2fr%2fx",
        description="run r",
        createTime=None,
        childSnapshotList=[],
    )
    scripted = site(**{"snapshot.rootSnapshotList": [node]})
    scripted.objects["task-1"] = {"info.state": "success"}

    def remove() -> Any:
        scripted.objects["vm-1"]["snapshot.rootSnapshotList"] = []
        scripted.objects["vm-1"]["runtime.consolidationNeeded"] = True
        return TASK

    def consolidate() -> Any:
        if answer is not None:
            raise answer
        scripted.objects["vm-1"]["runtime.consolidationNeeded"] = False
        return TASK

    scripted.mutations = {"RemoveSnapshot_Task": remove, "ConsolidateVMDisks_Task": consolidate}
    # The site stores a slash in a name as %2f.
    assert snapshots.remove_snapshot(tasks(scripted), VM, "failback/r/x", "run r", beat) is True
    # A file that is locked is tried again for a while, everything else is not.
    assert list(dict.fromkeys(scripted.sent)) == ["RemoveSnapshot_Task", "ConsolidateVMDisks_Task"]
    assert (len(scripted.sent) > 2) is isinstance(answer, vim.fault.FileLocked)
    assert bool(scripted.objects["vm-1"]["runtime.consolidationNeeded"]) is still_needed
    assert ("consolidation still needed" in caplog.text) is still_needed


@pytest.mark.parametrize(
    ("description", "name", "operation"),
    [
        ("VirtualMachine.createSnapshot", None, Operation.CREATE_SNAPSHOT),
        ("vim.VirtualMachine.createSnapshot", None, Operation.CREATE_SNAPSHOT),
        (None, "CreateSnapshot_Task", Operation.CREATE_SNAPSHOT),
        ("vm.Snapshot.remove", None, Operation.REMOVE_SNAPSHOT),
        ("vim.vm.Snapshot.revert", None, Operation.REVERT),
        ("VirtualMachine.powerOn", "PowerOnVM_Task", Operation.POWER_ON),
    ],
)
def test_kinds_of_task_are_known_by_any_spelling(
    description: str | None, name: str | None, operation: Operation
) -> None:
    task = cast("Any", {"info.descriptionId": description, "info.name": name})
    assert [kind for kind in Operation if kind.fits(task)] == [operation]


def test_reply_lost_is_an_ordinary_error_of_the_product() -> None:
    assert issubclass(ReplyLost, FailbackError)


def asking(message: str, *labels: str, text: str = "?") -> Any:
    return SimpleNamespace(
        id="7",
        text=text,
        message=[SimpleNamespace(id=message)] if message else None,
        choice=SimpleNamespace(
            choiceInfo=[
                SimpleNamespace(key=str(key), label=label) for key, label in enumerate(labels)
            ]
        ),
    )


def test_a_state_that_follows_later_is_waited_for() -> None:
    scripted = site()
    scripted.objects["task-1"] = {"info.state": "success"}
    scripted.mutations["PowerOnVM_Task"] = lambda: TASK
    looks = 0

    def running() -> bool:
        nonlocal looks
        looks += 1
        return looks > 3

    job = Job(Operation.POWER_ON, "power on", power_on(scripted).call, running)
    assert tasks(scripted).make_true(VM, job, beat) is True
    assert scripted.sent == ["PowerOnVM_Task"]


def test_a_question_that_comes_after_the_task_has_ended_is_seen() -> None:
    scripted = site()
    scripted.objects["task-1"] = {"info.state": "success"}
    scripted.mutations["PowerOnVM_Task"] = lambda: TASK
    scripted.objects["vm-1"]["runtime.question"] = asking("msg.disk.odd", "No", "Yes", text="Odd?")
    with pytest.raises(OperationFailed, match=r"msg\.disk\.odd.*Odd\?.*0 No, 1 Yes") as caught:
        tasks(scripted).make_true(VM, power_on(scripted), beat)
    assert "Answer it" in caught.value.remedy


@pytest.mark.parametrize(
    ("question", "ids"),
    [
        (asking("msg.uuid.altered", "a"), ("msg.uuid.altered",)),
        (asking("", "a", text="msg.uuid.altered: Was it moved?"), ("msg.uuid.altered",)),
        (asking("", "a", text="Was msg.uuid.altered: moved?"), ()),
        (asking("", "a", text="Moved or copied?"), ()),
    ],
)
def test_a_question_is_known_by_the_id_of_its_message(question: Any, ids: tuple[str, ...]) -> None:
    assert questions.message_ids(question) == ids


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        (("button.uuid.cancel", "button.uuid.movedTheVM", "button.uuid.copiedTheVM"), "1"),
        (("button.uuid.copiedTheVM", "button.uuid.movedTheVM"), "1"),
        (("Abbrechen", "Verschoben", "Kopiert"), "1"),
        # Not the three choices that we know: nobody guesses.
        (("Kopiert", "Verschoben"), None),
        (("a", "b", "c", "d"), None),
    ],
)
def test_moved_is_chosen_by_label_or_by_its_known_key(
    labels: tuple[str, ...], key: str | None
) -> None:
    question = asking(questions.UUID_ALTERED, *labels)
    assert questions.key_of(question, questions.MOVED[questions.UUID_ALTERED]) == key
