"""`make bench`: every benchmark in a process of its own.

    python benchmarks/run.py [name …]

Ends with 1 if one left no figures. A goal that was missed is said and is no error: it depends on
the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"


def main(names: list[str]) -> int:
    found = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = sorted(set(names) - set(found))
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}; there are {', '.join(found)}\n")
        return 2
    crashed, missed = [], []
    for name in names or found:
        sys.stdout.write(f"== {name}\n")
        sys.stdout.flush()
        report = BUILD / f"{name}.json"
        report.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, HERE / f"bench_{name}.py"], check=False)
        if not report.exists():
            crashed.append(name)
        elif done.returncode:
            missed.append(name)
    for word, which in (("goals missed", missed), ("no figures", crashed)):
        if which:
            sys.stdout.write(f"{word}: {', '.join(which)}\n")
    return 1 if crashed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
