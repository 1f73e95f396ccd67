"""Why a change of the layout is refused; every message says what to do instead."""

from cluster.errors import ConfigError


class LayoutRefusedError(ConfigError):
    """The change is not made; the layout stays as it is."""


class NoSuchPlaceError(LayoutRefusedError):
    """The layout has no such set, position or node."""


class DriveInUseError(LayoutRefusedError):
    """The drive has a place already."""


class ChangeInFlightError(LayoutRefusedError):
    """Another change is under way."""


class NotThisStepError(LayoutRefusedError):
    """The position, or the system set, is not in the state in which this step can be taken."""


class TooFewRemainError(LayoutRefusedError):
    """Too few voting drives of the set would remain."""


class DataLossError(LayoutRefusedError):
    """Fewer than k complete positions of the set would remain."""


class NotSyncedError(LayoutRefusedError):
    """A drive that is to vote has not taken over the rows of enough others."""


class NotAdoptedError(LayoutRefusedError):
    """Too few drives durably hold the epoch of the step before: an old coordinator could still find a quorum."""


class SystemMemberError(LayoutRefusedError):
    """The drive holds system registers: change the system set first."""


class StillInUseError(LayoutRefusedError):
    """The node still has drives in the layout."""
