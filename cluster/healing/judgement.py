"""Whether a shard may go: what a chosen state of its owner says about it. Pure."""

import enum
from collections.abc import Collection

from cluster.ids import DataId, data_id_hlc
from cluster.register.acceptor import Limits, collectable
from cluster.register.records import Register


class Verdict(enum.Enum):
    """What becomes of a shard to which its owner's state on its drive does not refer."""

    KEEP = "keep"  # it is referred to, or may still be
    FENCE = (
        "fence"  # nothing refers to it, but something might: write the owner back at a fresh ballot
    )
    COLLECT = "collect"  # nothing refers to it, nor ever will


def judge(chosen: Register, listed: Collection[DataId], data_id: DataId, limits: Limits) -> Verdict:
    """What a state that is known to be chosen says. `listed`: the data in its part lists that lie beside the record.

    A part of an upload is named by its own register until the upload is closed; the owner's state tells which are open.
    An upload is read as open before the id of a part is drawn, so one that was opened later cannot have the part; and
    one that is closed stays closed.
    """
    drawn = data_id_hlc(data_id)
    if data_id in listed or any(upload.created.hlc <= drawn for upload in chosen.state.uploads):
        return Verdict.KEEP
    if any(data_id == part.data_id for v in chosen.state.versions for part in v.parts):
        return Verdict.KEEP
    if collectable(chosen, data_id, seen_chosen=False, limits=limits):
        return Verdict.COLLECT
    return Verdict.FENCE
