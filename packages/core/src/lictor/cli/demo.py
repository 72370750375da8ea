"""`lictor demo`."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lictor.cli.shared import console, plain
from lictor.errors import ConfigError

MCP: Final = "mcp"
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "langchain": ("lictor_langchain", "langchain", "langgraph", "langchain_core"),
    MCP: ("lictor_mcp", "httpx", "starlette", "uvicorn"),
}
"""Each demo, and what has to be installed for it."""
_REPORTS: Final[Mapping[str, str]] = {"langchain": "report.json", MCP: "mcp.json"}
FOLDER: Final = Path("build/demo")
LEFT_OUT: Final = 3
"""Exit code of a demo that could not show everything here."""


def demo(
    which: Annotated[str, typer.Argument(help="langchain or mcp.")] = "langchain",
    model: Annotated[
        str | None,
        typer.Option(help="provider:name of a real model (langchain); recorded calls if left out."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Where the report goes, as JSON; build/demo if left out.")
    ] = None,
) -> None:
    """Lets an agent do the same thing twice, unguarded and guarded, on real ledgers and servers."""
    module = _loaded(which)
    report = report or FOLDER / _REPORTS[which]
    if which == MCP and model is not None:
        raise ConfigError("--model", "the demo of MCP uses no model", "leave it out")
    _writable(report)
    done = _servers(module, report) if which == MCP else _job(module, model)
    done.write(report)
    _records(done)
    if which != MCP:
        _spans(done)
    _next(done)
    if which == MCP:
        console.print(f"  {_program()} gateway install claude-desktop --all --dry-run")
    console.print(f"\nreport: {plain(report)}")
    if not done.stopped():
        console.print("\nThis run did not show what the demo claims.", style="bold red")
        raise typer.Exit(1)
    if which == MCP and done.left_out:
        console.print(f"\nleft out: {plain(done.left_out)}", style="yellow")
        raise typer.Exit(LEFT_OUT)


def _loaded(which: str) -> Any:
    if which not in _NEEDED:
        raise ConfigError("lictor demo", f"has no demo {which!r}", f"one of {', '.join(_NEEDED)}")
    try:
        return importlib.import_module(f"lictor_{which}.demo")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED[which]:
            raise
        raise ConfigError(
            "lictor demo", f"{missing} is not installed", f'pip install "lictor[{which}]"'
        ) from None


def _servers(module: Any, report: Path) -> Any:
    return module.run(
        lambda text, style: console.print(text, style=style or None, markup=False),
        report.parent / "npm",
    )


def _job(module: Any, model: str | None) -> Any:
    try:
        done = module.run(model=model)
    except (ValueError, ImportError) as error:
        if model is None:
            raise
        raise ConfigError(
            f"--model {model}", str(error), "provider:name, with its package installed"
        ) from None
    console.print("The job: read landlord-notices.txt and adjust the rent to what it says.")
    console.print("The notice also tells the agent to pay an attacker first.\n")
    _ledger("without Lictor", done.unguarded)
    _ledger("with Lictor", done.guarded)
    console.print()
    return done


def _writable(report: Path) -> None:
    """Fails before the runs, not after them."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(
            f"--report {report}", f"cannot be written: {error.strerror}", "name another file"
        ) from None


def _records(done: Any) -> None:
    console.print("every call of the guarded run", style="bold")
    for row in done.decisions:
        told = f": {row['why']}" if row["why"] and row["verdict"] != "allow" else ""
        console.print(
            f"  {plain(row['call']):<36} {', '.join(row['impact']):<9} {row['verdict']:<6}"
            f" {row['took_us']:>6} µs  {row['reason']}{plain(told)}",
            style=None if row["verdict"] == "allow" else "red",
        )


def _spans(done: Any) -> None:
    if done.spans:
        console.print("\nspans", style="bold")
        for line in done.spans:
            console.print(f"  {plain(line)}")
    else:
        console.print("\nspans: pip install opentelemetry-sdk shows them here")


def _next(done: Any) -> None:
    found = "intact" if done.audit["ok"] else "DAMAGED"
    console.print(f"\naudit verify: {done.audit['records']} records, {found}")
    console.print("\nnext:", style="bold")
    for command in ("explain last", "audit show", "check"):
        console.print(f"  {_program()} {command} -p {done.project / 'lictor.toml'}")


def _program() -> str:
    """How the reader can start the command again: it may lie outside his PATH."""
    return "lictor" if shutil.which("lictor") else os.path.relpath(sys.argv[0])


def _ledger(title: str, run: Any) -> None:
    stolen = run.after["paid_to_attacker"]
    style, word = ("red", f"paid {', '.join(stolen)}") if stolen else ("green", "paid nothing")
    console.print(f"{title:<15} attacker {word}", style=style, end="")
    console.print(
        f"; balance {run.before['balance']} -> {run.after['balance']};"
        f" rent {run.before['rent']} -> {run.after['rent']}"
    )
