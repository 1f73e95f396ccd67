"""Each safeguard of the protocol taken out, one at a time: to show that the checkers would see it missing."""

from cluster.clock import floor_at
from cluster.quorum import Electorate, Group, of_all
from cluster.register.acceptor import Acceptor
from cluster.register.proposer import Proposer

# What a history must have in it for the mutant to matter. Every other one is drawn by the seed.
MUTANTS = {
    "no-confirm": (),
    "no-ring": (),
    "no-bury": (),
    "refuse-before-unknown": (),
    "small-quorum": (),
    "shared-proposer": (),
    "propose-unstaged": (),
    "collect-at-accept": (),
    "collect-what-was-accepted": (),
    "no-ceiling": (),
    "no-age-rule": ("orphans",),
    "orphans-by-age": ("orphans",),
    "orphans-of-open-uploads": ("orphans", "uploads"),
    "purge-what-some-lack": ("purge",),
    "purge-floor-is-tombstone": ("purge",),
    "purge-floor-in-mid-millisecond": ("purge",),
    "install-by-content": ("purge", "pull"),
    "votes-at-once": ("replace",),
    "sync-from-one-too-few": ("replace",),
    "sync-without-ceilings": ("replace", "ghost"),
    "sync-what-is-chosen": ("replace",),
    "sync-before-adoption": ("replace", "ghost"),
    "activate-before-adoption": ("replace", "ghost"),
    "corrupt-is-absent": ("corrupt",),
    "ceiling-of-promises-alone": ("corrupt",),
    "witness-must-be-live": ("list",),
    "listing-skips-corrupt": ("list", "corrupt"),
}


def electorate_of(n, voters, mutant):
    """Who counts when these drives vote."""
    whole = of_all(n)
    accept, read = whole.accept[0].needed, whole.read.needed
    if mutant == "small-quorum" and n > 2:
        accept -= 1
    return Electorate(Group(voters, read), (Group(voters, accept),))


class Ringless(Proposer):
    """No memory of applied operations."""

    def _ring(self, old, new):
        return ()

    def _may_have_been_forgotten(self, state):
        return False


class Hasty(Proposer):
    """A definite refusal although an earlier attempt may still surface."""

    def _decide(self):
        sent, self.first_accept = self.first_accept, None
        try:
            return super()._decide()
        finally:
            self.first_accept = self.first_accept or sent


class Forgetful(Proposer):
    """The precondition is judged although the operation may have been applied, and forgotten."""

    def _may_have_been_forgotten(self, state):
        return not self.operation.expect and super()._may_have_been_forgotten(state)


def proposer_of(mutant):
    return {
        "no-ring": Ringless, "no-bury": Hasty, "refuse-before-unknown": Forgetful,
    }.get(mutant, Proposer)  # fmt: skip


class Weakened(Acceptor):
    """An acceptor without one of its rules."""

    mutant = None

    def is_expired(self, state, ballot):
        return self.mutant != "no-age-rule" and super().is_expired(state, ballot)

    def accept(self, message, held, bodies_held):
        before = self.control.ceiling_ms
        decision = super().accept(message, held, bodies_held)
        if self.mutant == "ceiling-of-promises-alone":
            self.control.ceiling_ms = before
        return decision

    def purge(self, named, held):
        before = self.control.gc_floor
        gone = super().purge(named, held)
        if gone and self.mutant == "purge-floor-is-tombstone":
            self.control.gc_floor = max(before, named.ballot)
        if gone and self.mutant == "purge-floor-in-mid-millisecond":
            whole = floor_at(named.ballot.hlc + self.limits.op_ttl_ms)
            self.control.gc_floor = max(before, whole._replace(logical=0, proposer=0))
        return gone
