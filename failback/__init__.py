"""The product without Temporal: contracts, hypervisor ports, disks, catalog, preflight, report."""
