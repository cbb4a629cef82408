"""Two movers, each near its own disk, and the one TLS connection between them.

`service` digests and reads the source disk where it is, `disk` is that disk as the other mover sees
it, `scout` finds what differs by comparing digests. docs/decisions/digest.md says why.
"""
