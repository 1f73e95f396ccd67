"""What a case found, beside what it aims at: one JSON line each, one table at the end. Pure but for printing."""

import json
from collections.abc import Mapping

import attrs

COLUMNS = (
    "case", "ops", "mib_s", "p50_ms", "p99_ms", "cpu_us", "disk_kib", "own_kib", "rss_mib", "seconds",
    "ratio", "baseline", "aim", "verdict",
)  # fmt: skip
# Of these more is better; of all others less is.
_MORE_IS_BETTER = frozenset({"ratio", "ops", "mib_s"})
NO_AIM = "none set"


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table. None: not measured in this case.

    `ops` and `mib_s` are a second; `cpu_us` (of the server), `disk_kib` (the whole machine's) and `own_kib` (the
    server's) are for each operation; `rss_mib` is the server's peak; `seconds` is what a start took; `ratio` is to
    `baseline`.
    """

    case: str
    aim: Mapping[str, float] = attrs.field(factory=dict)  # column -> bound
    ops: float | None = None
    mib_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us: float | None = None
    disk_kib: float | None = None
    own_kib: float | None = None
    rss_mib: float | None = None
    seconds: float | None = None
    ratio: float | None = None
    baseline: str = ""
    note: str = ""  # what a reader of the JSON line should know
    error: str = ""  # why there are no figures

    def __attrs_post_init__(self) -> None:
        assert self.error or all(getattr(self, column) is not None for column in self.aim)

    @property
    def missed(self) -> list[str]:
        """The columns that do not reach their bound."""
        return [column for column, bound in self.aim.items() if not self._reaches(column, bound)]

    def _reaches(self, column: str, bound: float) -> bool:
        value = getattr(self, column)
        return value >= bound if column in _MORE_IS_BETTER else value <= bound

    @property
    def verdict(self) -> str:
        """What the figures say of the aim."""
        if self.error:
            return f"FAILED: {self.error}"
        if not self.aim:
            return ""
        return f"missed: {', '.join(self.missed)}" if self.missed else "reached"

    def cells(self) -> dict[str, object]:
        """The table's columns, with the aim as text."""
        cells: dict[str, object] = {c: getattr(self, c) for c in COLUMNS}
        bounds = [
            f"{column} {'≥' if column in _MORE_IS_BETTER else '≤'} {bound:g}"
            for column, bound in self.aim.items()
        ]
        cells["aim"] = ", ".join(bounds) or NO_AIM
        return cells


def json_line(row: Row) -> str:
    """The row for machines."""
    cells = row.cells()
    if row.note:
        cells["note"] = row.note
    return json.dumps(cells, ensure_ascii=False)


def table(rows: list[Row]) -> str:
    """The rows for people, as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = row.cells()
        shown = ("" if cells[c] is None else str(cells[c]).replace("|", "\\|") for c in COLUMNS)
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)
