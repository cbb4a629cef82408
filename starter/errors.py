"""What can go wrong between a client and a run.

FailbackError (failback/errors.py)
 `- ClientError
     |- KeyInvalid           not a replica key
     |- InputInvalid         a value that does not fit the request
     |- TemporalUnreachable  no answer from the Temporal server            (retryable)
     |- TemporalRefused      the server answers, but not to us
     |- WorkerAbsent         nobody polls the task queue, or nobody answers  (retryable)
     |- RunUnknown           there is no run of this replica
     |- RunOpen              a run of this replica is open already
     |- FinishImpossible     a run that was left behind cannot be finished in this way
     |- PreviewFailed        a plan was asked for and got no answer
     |- RunEnded             the run ended, and not by commit, undo or refusal
     `- OperatorNeeded       the run stands in NEEDS_OPERATOR while we wait
"""

from __future__ import annotations

from failback.errors import Audience, FailbackError


class ClientError(FailbackError):
    """Something between a client and a run."""


class KeyInvalid(ClientError):
    """Not a replica key."""


class InputInvalid(ClientError):
    """A value that does not fit the request."""


class TemporalUnreachable(ClientError):
    """No answer from the Temporal server."""

    retryable = True
    unreachable = True
    audience = Audience.ADMINISTRATOR


class TemporalRefused(ClientError):
    """The server answers, but not to us: permissions, namespace, certificate."""

    audience = Audience.ADMINISTRATOR


class WorkerAbsent(ClientError):
    """The server has the run, but no worker answers for it."""

    retryable = True
    audience = Audience.ADMINISTRATOR


class RunUnknown(ClientError):
    """There is no run of this replica."""


class RunOpen(ClientError):
    """A run of this replica is open already."""


class FinishImpossible(ClientError):
    """A run that was left behind cannot be finished in this way."""


class PreviewFailed(ClientError):
    """A plan was asked for and got no answer."""


class RunEnded(ClientError):
    """The run ended in Temporal (terminated, failed), not by commit, undo or refusal."""


class OperatorNeeded(ClientError):
    """The run stands in NEEDS_OPERATOR, so what is waited for does not come by itself."""
