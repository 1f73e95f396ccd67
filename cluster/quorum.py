"""Quorum sizes of an erasure set (Flexible Paxos, Howard et al., 2016)."""

import attrs


@attrs.frozen
class Quorum:
    """For n drives: accept needs a majority; promise and read need enough to meet every majority."""

    n: int = attrs.field(validator=attrs.validators.ge(1))

    @property
    def accept(self) -> int:
        """Qw: accepts that make a value chosen."""
        return self.n // 2 + 1

    @property
    def read(self) -> int:
        """Qr: promises or answers that meet every accept quorum: Qr + Qw = n + 1."""
        return self.n - self.accept + 1


@attrs.frozen
class Group:
    """At least `needed` of the members: a bitmap over the drives that are asked."""

    members: int
    needed: int

    def is_met(self, answered: int) -> bool:
        """Whether enough of them answered (a bitmap, too)."""
        return (answered & self.members).bit_count() >= self.needed

    def is_lost(self, refused: int) -> bool:
        """Whether too few are left that could still answer."""
        return (self.members & ~refused).bit_count() < self.needed


@attrs.frozen
class Electorate:
    """Whose answers count among the drives that are asked about a register."""

    read: Group  # promises and answers that meet every accept quorum
    accept: tuple[Group, ...]  # a value is chosen when all of the groups have accepted it

    def have_accepted(self, accepted: int) -> bool:
        """Whether these drives choose a value."""
        return all(group.is_met(accepted) for group in self.accept)

    def cannot_accept(self, refused: int) -> bool:
        """Whether without these drives no value can be chosen."""
        return any(group.is_lost(refused) for group in self.accept)


def of_all(n: int) -> Electorate:
    """All of n drives vote."""
    everybody, quorum = (1 << n) - 1, Quorum(n)
    return Electorate(Group(everybody, quorum.read), (Group(everybody, quorum.accept),))


def durable_shards(k: int, n: int) -> int:
    """D: shards that must be durable before a record may name them; one more than needed, where there is one."""
    return min(k + 1, n)


def adaptive_data_shards(k: int, m: int, live: int) -> int | None:
    """K' for a PUT with `live` drives that can stage; None: refuse (503).

    With fewer than k+1 live drives the object is coded with k' = live - 1 of the same n, so that k'+1 shards are
    durable and one more loss is survived (PROTOCOL: adaptive rule).
    """
    n = k + m
    if live >= durable_shards(k, n):
        return k
    if m > 0 and live >= max(2, Quorum(n).accept):
        return live - 1
    return None
