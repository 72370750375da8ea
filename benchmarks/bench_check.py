"""How long `lictor check` takes for 100 tools, from the shell's point of view.

Run: `python benchmarks/bench_check.py`. Each case is a process of its own and keeps its fastest
run; the goal of the issue is one second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lictor.catalog import note
from lictor.catalog.locking import locked_text
from lictor.model import Tool, ToolKey

sys.path.insert(0, str(Path(__file__).parent))
from common import write

ROUNDS, COUNT = 7, 100
LIMIT = 1.0
IMPACTS = ("read", "write", "send", "transfer", "delete")
LICTOR = """\
[agents.bot]
owner = "alice"

[users.alice]

[tasks.pay]
tools = ["srv0/tool0"]

[[rule]]
tool = "srv3/tool3"
allow = { amount = { min = "0.01", max = "500" } }
otherwise = "confirm:user"
"""


def tools() -> list[Tool]:
    schema = {
        "type": "object",
        "properties": {
            "to": {"type": "string", "description": "Who gets it."},
            "amount": {"type": "number", "minimum": 0},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["to", "amount"],
    }
    return [
        Tool(ToolKey(f"srv{n % 10}", f"tool{n}"), "Does what it does. " * 20, schema)
        for n in range(COUNT)
    ]


def project(folder: Path, *, file: bool) -> None:
    """A project of 100 reviewed tools, with `lictor.toml` or as `Gate.dev()` leaves it."""
    made = tools()
    folder.mkdir()
    note(folder / ".lictor/seen.json", made)
    (folder / "catalog.lock").write_text(locked_text({tool.key: tool for tool in made}))
    entries = [
        f'[[tool]]\nserver = "{tool.key.server}"\nname = "{tool.key.name}"\n'
        f'impact = "{IMPACTS[n % len(IMPACTS)]}"\ntarget = "to"\namount = "amount"\n'
        f'pin = "{tool.pin}"\n'
        for n, tool in enumerate(made)
    ]
    (folder / "catalog.toml").write_text("\n".join(entries))
    if file:
        (folder / "lictor.toml").write_text(LICTOR)


def seconds(folder: Path, *words: str) -> float:
    code = "from lictor.cli import main; main()"
    argv = [sys.executable, "-c", code, "check", *words, "-p", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    took = time.perf_counter() - start
    if f"{COUNT} reviewed tools" not in done.stdout:
        raise SystemExit(f"check did not check:\n{done.stdout}{done.stderr}")
    return took


def main() -> int:
    with tempfile.TemporaryDirectory() as made:
        place = Path(made).resolve()
        project(place / "file", file=True)
        project(place / "dev", file=False)
        cases = {
            "check": (place / "file",),
            "check_dev_folder": (place / "dev",),
            "check_production": (place / "file", "--production"),
        }
        best = dict.fromkeys(cases, float("inf"))
        for _ in range(ROUNDS):
            for name, (folder, *words) in cases.items():
                best[name] = min(best[name], seconds(folder, *words))
    met = write(
        "check",
        {f"{name}_ms": took * 1000 for name, took in best.items()},
        {f"{name}_seconds": took / LIMIT for name, took in best.items()},
        {f"{name}_seconds": "<= 1" for name in best},
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
