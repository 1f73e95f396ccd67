"""The store without a safeguard, which the checkers must notice."""

from contextlib import contextmanager

from cluster.drives.registers import Registers
from cluster.objects import buckets
from cluster.register.messages import Accept, Accepted


class Forgetful:
    """LEARN and confirmation aside, acknowledges what it has not made durable."""

    def __init__(self, drive):
        self._drive = drive

    def __getattr__(self, name):
        return getattr(self._drive, name)

    def submit(self, request, reply):
        if isinstance(request, Accept):
            self._drive.submit(request, lambda _: None)
            reply(Accepted(1))
        else:
            self._drive.submit(request, reply)


@contextmanager
def replaced(owner, name, value):
    """`owner.name` is `value` for a while."""
    usual = getattr(owner, name)
    setattr(owner, name, value(usual))
    try:
        yield
    finally:
        setattr(owner, name, usual)


def _without_fence(usual):
    async def fence_set(members, fence, watch):
        return members

    return fence_set


def _shows_at_once(usual):
    return lambda self, seq, reply, answer: reply(answer)


MUTANTS = {
    "a bucket is deleted without a fence": lambda: replaced(buckets, "fence_set", _without_fence),
    "what is shown is not durable": lambda: replaced(Registers, "when_shown", _shows_at_once),
}
