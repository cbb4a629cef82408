"""`python -m failback.disks`: compare, sync and verify two disks, without any service."""
