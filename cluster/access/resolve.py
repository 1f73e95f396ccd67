"""What an access key stands for, and which registers have to be asked before that can be said. Pure."""

import attrs

from cluster.access.builtin import BUILT_IN
from cluster.access.leases import Kept, Known, KnownKey, Leases
from cluster.access.records import Policy, User, key_name, policy_name, user_name


@attrs.frozen(kw_only=True)
class Holder:
    """Who may use an access key, by which secret, and for what."""

    user: str
    secret: str = attrs.field(repr=False)
    documents: tuple[str, ...]  # of all policies; none: nothing is allowed


@attrs.frozen
class Settled:
    """The answer. None: nobody's, or not to be used."""

    holder: Holder | None


@attrs.frozen
class Ask:
    """These registers have to be read first, all at once."""

    names: tuple[bytes, ...]


def walk(access_key: str, leases: Leases, *, now: float, since: float) -> Settled | Ask:
    """From the access key over its user to the policies, as far as they are known.

    What has run out still says where the walk goes on, so that all of it is asked for in one round.
    """
    trail = _follow(access_key, leases)
    names = tuple(
        name
        for name, kept in trail.kept.items()
        if kept is None or not leases.is_usable(kept, now=now, since=since)
    )
    return Ask(names) if names else Settled(trail.holder)


@attrs.define
class _Trail:
    """The registers on the way, and what they say as far as they are known."""

    kept: dict[bytes, Kept | None] = attrs.field(factory=dict)
    holder: Holder | None = None


def _follow(access_key: str, leases: Leases) -> _Trail:
    trail = _Trail()

    def look(name: bytes) -> Known | None:
        kept = trail.kept[name] = leases.find(name)
        return None if kept is None else kept.known

    key = look(key_name(access_key))
    if not isinstance(key, KnownKey) or key.disabled:
        return trail
    user = look(user_name(key.user))
    if not isinstance(user, User) or user.disabled or user.user_id != key.user_id:
        return trail
    documents = []
    for name in user.policies:
        policy = None if name in BUILT_IN else look(policy_name(name))
        if isinstance(policy, Policy):
            documents.append(policy.document)
        elif name in BUILT_IN:
            documents.append(BUILT_IN[name])
    # A policy that is gone may have denied something: without it nothing is known to be allowed.
    whole = len(documents) == len(user.policies)
    trail.holder = Holder(
        user=user.name, secret=key.secret, documents=tuple(documents) if whole else ()
    )
    return trail
