"""What a row found, beside what it aims at: one JSON line each, one table at the end. Pure."""

import json
from collections.abc import Sequence

import attrs

from tests.bench.aims import AIMS, MORE_IS_BETTER, aim_text

COLUMNS = (
    "row", "case", "ops", "mib_s", "p50_ms", "p99_ms", "cpu_us", "disk_kib", "own_kib", "rss_mib",
    "seconds", "ratio", "baseline", "aim", "verdict",
)  # fmt: skip


@attrs.frozen(kw_only=True)
class Row:
    """One line of the table. None: not measured in this case.

    `ops` and `mib_s` are a second; `cpu_us` (of the server), `disk_kib` (the whole machine's) and `own_kib` (the
    server's) are for each operation; `rss_mib` is the server's peak; `seconds` is what a start took; `ratio` is to
    `baseline`.
    """

    row: str  # CASE.WHAT, a key of AIMS; only CASE where it failed
    case: str  # what was done, for people
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
        assert self.error or all(getattr(self, column) is not None for column in AIMS[self.row])

    @property
    def missed(self) -> list[str]:
        """The columns that do not reach their bound."""
        return [
            column for column, bound in AIMS[self.row].items() if not self._is_in(column, bound)
        ]

    def _is_in(self, column: str, bound: float) -> bool:
        value = getattr(self, column)
        return bool(value >= bound if column in MORE_IS_BETTER else value <= bound)

    @property
    def verdict(self) -> str:
        """What the figures say of the aim."""
        if self.error:
            return f"FAILED: {self.error}"
        if not AIMS[self.row]:
            return ""
        return f"missed: {', '.join(self.missed)}" if self.missed else "reached"

    @property
    def aim(self) -> str:
        """The aim, in words."""
        return aim_text(self.row)


def json_line(row: Row) -> str:
    """The row for machines."""
    cells = {column: getattr(row, column) for column in (*COLUMNS, "note")}
    return json.dumps(cells, ensure_ascii=False)


def table(rows: Sequence[Row]) -> str:
    """The rows for people, as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        cells = [getattr(row, column) for column in COLUMNS]
        shown = ("" if cell is None else str(cell).replace("|", "\\|") for cell in cells)
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)
