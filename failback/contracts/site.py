"""What a site says of itself."""

from __future__ import annotations

from failback.contracts.base import Contract, Name


class SiteAbout(Contract):
    """A vCenter, or an ESXi host without one."""

    product: Name
    """For people: `VMware vCenter Server 8.0.3 build-24022515`."""
    api_version: Name
    """`8.0.3.0`."""
    vcenter: bool = True
    uuid: Name = ""
    """Instance uuid of the vCenter; of a host, a name that stands for it."""
