"""Paging of changed areas against answers that no healthy site gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from failback.contracts.vm import Disk, DiskAddress, VmIdentity
from failback.errors import LeaseLost, PrivilegeMissing, SiteUnreachable, TrackingUnusable
from failback.hypervisor.vsphere.api import vim, vmodl
from failback.hypervisor.vsphere.tasks import Tasks
from failback.hypervisor.vsphere.tracking import changed_areas

VM = VmIdentity(
    site="dr",
    vcenter_uuid="v",
    moref="vm-1",
    name="web",
    instance_uuid="i",
    bios_uuid="b",
    path="p",
)
DISK = Disk(
    key=2000,
    address=DiskAddress(controller="scsi", bus=0, unit=0),
    file="[ds] web/web.vmdk",
    capacity_bytes=1000,
    change_id="52 aa/9",
)


def page(start: int, length: int, *areas: tuple[int, int]) -> Any:
    return SimpleNamespace(
        startOffset=start,
        length=length,
        changedArea=[SimpleNamespace(start=at, length=size) for at, size in areas],
    )


@dataclass
class Answers:
    """A session that answers from a list and notes what it was asked."""

    answers: list[Any]
    site: str = "dr"
    asked: list[int] = field(default_factory=list)

    def read(self, target: Any, method: str, *args: Any, beat: Any = None) -> Any:
        assert method == "QueryChangedDiskAreas"
        self.asked.append(args[2])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def areas(answers: Answers, since: str = "52 aa/3") -> list[tuple[int, int]]:
    tasks = cast("Tasks", SimpleNamespace(session=answers))
    return list(changed_areas(tasks, VM, "snapshot-1", DISK, since, lambda: None))


def test_the_next_question_starts_where_the_page_ends_and_never_at_capacity() -> None:
    site = Answers([page(0, 400, (0, 10), (50, 50)), page(400, 100), page(500, 500, (990, 10))])
    assert areas(site) == [(0, 10), (50, 50), (990, 10)]
    assert site.asked == [0, 400, 500]


def test_an_allocated_question_needs_no_earlier_tracking() -> None:
    assert areas(Answers([page(0, 1000, (0, 1000))]), since="*") == [(0, 1000)]


@pytest.mark.parametrize(
    "answers",
    [
        [page(10, 990)],
        [page(0, 0)],
        [page(0, -5)],
        [page(0, 1001)],
        [page(0, 400), page(0, 400)],
        [page(0, 400, (390, 20))],
        [page(0, 400, (50, 10), (40, 10))],
        [page(0, 400, (50, 10), (55, 10))],
        [page(0, 400, (50, 0))],
        [vim.fault.FileFault(file="x")],
        [vmodl.fault.MethodNotFound(method="x")],
        [vmodl.fault.InvalidArgument(invalidProperty="startOffset")],
        [vmodl.fault.NotSupported()],
    ],
)
def test_an_answer_that_cannot_be_right_is_not_used(answers: list[Any]) -> None:
    with pytest.raises(TrackingUnusable, match="scsi0:0 of web"):
        areas(Answers(answers))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (vmodl.fault.HostNotConnected(), SiteUnreachable),
        (vim.fault.NoPermission(privilegeId="p"), PrivilegeMissing),
    ],
)
def test_trouble_that_says_nothing_about_tracking_keeps_its_own_name(
    fault: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        areas(Answers([fault]))


def test_the_lease_is_asked_before_every_page() -> None:
    def beat() -> None:
        raise LeaseLost("A newer attempt has taken over.")

    site = Answers([page(0, 1000)])
    tasks = cast("Tasks", SimpleNamespace(session=site))
    with pytest.raises(LeaseLost):
        list(changed_areas(tasks, VM, "snapshot-1", DISK, "52 aa/3", beat))
    assert site.asked == []
