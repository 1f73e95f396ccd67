"""What each row of the bench aims at: bounds by column. Ratios are to a baseline of the same run."""

from collections.abc import Mapping

# Of these columns more is better; of all others less is.
MORE_IS_BETTER = frozenset({"ratio", "ops", "mib_s"})
NONE_SET = "none set"
_RSS = {"rss_mib": 250}
_START = {"seconds": 5}
_PAGE = {"p50_ms": 15}

Aim = Mapping[str, float]
AIMS: Mapping[str, Aim] = {
    "small.put": {"ratio": 0.28, "p99_ms": 40, "disk_kib": 100},
    "small.get": {"ratio": 0.6},
    "small.head": {"ratio": 0.6},
    "index.get": {"ratio": 0.45},
    "middle.put": {},
    "large.put-1m": {"ratio": 0.6},
    "large.get-1m": {"ratio": 0.6},
    "large.put-16m": {"ratio": 0.8},
    "large.get-16m": {"ratio": 0.6},
    "list.page": _PAGE,
    "list.delete": {"ops": 1.5},  # 1,500 keys a second
    "memory.put": _RSS,
    "memory.get": _RSS,
    "restart.stopped": _START,
    "restart.killed": _START,
    "restart.list": _PAGE,
    "restart.list-small": _PAGE,
    "big.put": _RSS,
    "big.get": _RSS,
    "written-4k.put": {"disk_kib": 100},
    "written-64k.put": {},
    "written-16m.put": {},
}


def aim_text(name: str) -> str:
    """The aim of a row, or of all rows of a case."""
    if name in AIMS:
        return _text(AIMS[name])
    mine = {row: aim for row, aim in AIMS.items() if row.startswith(f"{name}.")}
    return "; ".join(f"{row.partition('.')[2]}: {_text(aim)}" for row, aim in mine.items())


def _text(aim: Aim) -> str:
    bounds = [
        f"{column} {'≥' if column in MORE_IS_BETTER else '≤'} {bound:g}"
        for column, bound in aim.items()
    ]
    return ", ".join(bounds) or NONE_SET
