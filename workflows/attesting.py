"""What a person answers for: VMs that are off although no site can say so.

Names repeat within a site and morefs between sites, so that a word which fits two VMs would speak
for the wrong one; a run keeps each VM by its one reference. What is said holds until a site that
answers says otherwise, and no longer than until the decision.
"""

from __future__ import annotations

from collections.abc import Iterable

from failback.contracts.requests import Request
from failback.contracts.vm import VmIdentity
from workflows.facts import Facts


def problem(facts: Facts, request: Request) -> str | None:
    """Why nobody can tell which VMs are meant, with those that may be named; None: it is clear."""
    words = _words(facts)
    for name in request.attest_off:
        fitting = _fitting(words, name)
        if len(fitting) == 1:
            continue
        what = f"fits {len(fitting)} VMs of this run" if fitting else "is no VM of this run"
        known = ", ".join(f"{vm.ref} ({vm.name})" for vm in words) or "none before its plan is made"
        # Cut, because a quoted name may take ten times its length.
        return f"attest_off: {name[:80]!r} {what}; name one of: {known}."
    return None


def unsigned(request: Request) -> str | None:
    """Why nobody answers for what is declared; None: somebody does, or nothing is."""
    if request.attest_off and not (request.by and request.reason):
        return "attest_off needs `by` and `reason`: somebody answers for what no site can say."
    return None


def references(facts: Facts, names: Iterable[str]) -> tuple[str, ...]:
    """Each VM by its reference, once; what fits none, or two, stays as it was said."""
    words = _words(facts)
    found = ((_fitting(words, name), name) for name in names)
    return tuple(dict.fromkeys(vms[0].ref if len(vms) == 1 else name for vms, name in found))


def declare(facts: Facts, names: Iterable[str]) -> Facts:
    """Somebody answers for these, too."""
    said = references(facts, (*facts.attested_off, *names))[-16:]
    return facts.model_copy(update={"attested_off": said})


def disprove(facts: Facts, vm: str) -> Facts:
    """This VM (its reference) was seen not to be off: nobody's word for it counts any more."""
    left = tuple(name for name in references(facts, facts.attested_off) if name != vm)
    return facts.model_copy(update={"attested_off": left})


def _words(facts: Facts) -> dict[VmIdentity, frozenset[str]]:
    """By what each VM of the run may be named."""
    if facts.plan is None:
        return {}
    found = {}
    for vm in (facts.plan.replica, *facts.targets, *facts.others):
        # A VM that the run makes bears two names, one after the other.
        final = facts.plan.final_name if vm in facts.targets else ""
        words = {vm.name, vm.moref, final} - {""}
        found[vm] = frozenset(words | {f"{vm.site}:{word}" for word in words})
    return found


def _fitting(words: dict[VmIdentity, frozenset[str]], name: str) -> list[VmIdentity]:
    return [vm for vm, fits in words.items() if name in fits]
