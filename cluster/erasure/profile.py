"""Which code a set uses: k data and m parity shards, and what follows from a number of drives."""

import attrs

from cluster.errors import ConfigError

MAX_SHARDS = 20

# Drives in one set -> the code that `node start` takes when none is named: one third parity, where that is whole.
DEFAULT_CODES: dict[int, tuple[int, int]] = {
    1: (1, 0),
    2: (1, 1),
    3: (2, 1),
    4: (2, 2),
    5: (3, 2),
    6: (4, 2),
    7: (5, 2),
    8: (5, 3),
    9: (6, 3),
    10: (6, 4),
    11: (7, 4),
    12: (8, 4),
}
_SET_SIZES = (
    12,
    11,
    10,
    9,
    8,
    7,
    6,
)  # preferred sizes of a set, where there are more drives than one set holds


@attrs.frozen
class Profile:
    """k data and m parity shards: any k of the n = k + m give the data back. k >= m, n <= 20."""

    k: int = attrs.field(validator=attrs.validators.ge(1))
    m: int = attrs.field(validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        if self.k < self.m:
            raise ConfigError(
                f"{self.k}+{self.m}: more parity than data shards; use at least {self.m}+{self.m}"
            )
        if self.n > MAX_SHARDS:
            raise ConfigError(f"{self.k}+{self.m}: a set has at most {MAX_SHARDS} drives")

    @property
    def n(self) -> int:
        """Drives in a set."""
        return self.k + self.m

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"


def parse_profile(text: str) -> Profile:
    """A profile from its written form, "4+2". Raises ConfigError."""
    k, plus, m = text.partition("+")
    if not (
        plus and k.isdecimal() and m.isdecimal() and len(k) <= 2 and len(m) <= 2 and int(k) >= 1
    ):
        raise ConfigError(f"{text!r} is no erasure code: write data+parity, for example 4+2")
    return Profile(int(k), int(m))


def default_profile(drives: int) -> Profile:
    """The code for a number of drives: one set up to 12, else equal sets of 6 to 12, as large as possible.

    Raises ConfigError, naming the nearest numbers that work.
    """
    if drives in DEFAULT_CODES:
        return Profile(*DEFAULT_CODES[drives])
    for size in _SET_SIZES:
        if drives > 0 and drives % size == 0:
            return Profile(*DEFAULT_CODES[size])
    raise ConfigError(
        f"{drives} drives make no whole sets of 6 to 12; the nearest numbers that do: {_nearest(drives)}"
    )


def _nearest(drives: int) -> str:
    works = [
        n
        for n in range(1, drives + 13)
        if n in DEFAULT_CODES or any(n % s == 0 for s in _SET_SIZES)
    ]
    below = max((n for n in works if n < drives), default=None)
    above = min(n for n in works if n > drives)
    return f"{below} or {above}" if below is not None else str(above)


def whole_sets(drives: int, profile: Profile) -> int:
    """How many sets that many drives form. Raises ConfigError when some would be left over."""
    sets, rest = divmod(drives, profile.n)
    if drives and not rest:
        return sets
    choices = " or ".join(str(s * profile.n) for s in (sets, sets + 1) if s)
    raise ConfigError(
        f"{drives} drives make no whole sets of {profile} ({profile.n} drives each): give {choices} drives, "
        f"or another code"
    )
