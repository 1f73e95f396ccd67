"""`python -m tests.bench [--quick] [case ...]`: one JSON line a row, then a table of figures, aims and verdicts.

Every case has nodes of its own. The exit status is 1 where a case could not be run to its end; a missed aim is a finding.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from tests.bench import cases, heavy
from tests.bench.baselines import measure_baselines
from tests.bench.core import Bench
from tests.bench.report import Row, table

SCRATCH = Path(".cache") / "bench"
CASES = {
    "small": cases.small,
    "index": cases.index,
    "middle": cases.middle,
    "large": cases.large,
    "list": cases.listing,
    "memory": cases.memory,
    "restart": heavy.restart,
    "big": heavy.big,
    "written-4k": cases.amplification_4k,
    "written-64k": cases.amplification_64k,
    "written-16m": cases.amplification_16m,
}


def main(arguments):
    """The exit status."""
    options = {a for a in arguments if a.startswith("-")}
    chosen = [a for a in arguments if a not in options] or list(CASES)
    unknown = sorted(options - {"--quick"}) + [name for name in chosen if name not in CASES]
    if unknown:
        print(f"unknown: {' '.join(unknown)}. [--quick] [{' '.join(CASES)}]", file=sys.stderr)
        return 2
    # A terminated run must remove its gigabytes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    SCRATCH.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=SCRATCH)).absolute()
    try:
        return _run(chosen, scratch, quick="--quick" in options)
    finally:
        shutil.rmtree(scratch)


def _run(chosen, scratch, *, quick):
    seconds = 2.0 if quick else 5.0
    base = measure_baselines(scratch, seconds)
    shown = {name: round(value, 1) for name, value in base.items()}
    print(json.dumps({"baselines": shown, "load": os.getloadavg()}), flush=True)
    bench = Bench(scratch, base, quick, seconds)
    failed = run_cases(bench, chosen)
    print("\n" + table(bench.rows))
    return 1 if failed else 0


def run_cases(bench, chosen):
    """Run the cases, whatever becomes of each; the names of those that could not be run to their end."""
    failed = []
    for name in chosen:
        try:
            CASES[name](bench)
        except Exception as error:
            # The other cases still have something to say; the exit status tells of this one.
            failed.append(name)
            traceback.print_exc()
            bench.add(Row(row=name, case=name, error=_in_a_line(error)))
    return failed


def _in_a_line(error):
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
