"""Drives without a safeguard, which the checkers must notice."""

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
