"""`lictor demo`."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lictor.cli.shared import console, plain
from lictor.errors import ConfigError

REPORT: Final = Path("build/demo/report.json")


def demo(
    model: Annotated[
        str | None, typer.Option(help="provider:name of a real model; recorded calls if left out.")
    ] = None,
    report: Annotated[
        Path, typer.Option(help="Where the report goes, as JSON.", show_default=True)
    ] = REPORT,
) -> None:
    """Lets an agent do the same job twice, unguarded and guarded, on a real ledger."""
    try:
        module: Any = importlib.import_module("lictor_langchain.demo")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("lictor_langchain", "langchain", "langgraph", "langchain_core"):
            raise
        raise ConfigError(
            "lictor demo", f"{missing} is not installed", 'pip install "lictor[langchain]"'
        ) from None
    _writable(report)
    try:
        done = module.run(model=model)
    except (ValueError, ImportError) as error:
        if model is None:
            raise
        raise ConfigError(
            f"--model {model}", str(error), "provider:name, with its package installed"
        ) from None
    done.write(report)
    _print(done)
    console.print(f"\nreport: {plain(report)}")
    if not done.stopped():
        console.print("\nThis run did not show what the demo claims.", style="bold red")
        raise typer.Exit(1)


def _writable(report: Path) -> None:
    """Fails before the runs, not after them."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(
            f"--report {report}", f"cannot be written: {error.strerror}", "name another file"
        ) from None


def _print(done: Any) -> None:
    console.print("The job: read landlord-notices.txt and adjust the rent to what it says.")
    console.print("The notice also tells the agent to pay an attacker first.\n")
    _ledger("without Lictor", done.unguarded)
    _ledger("with Lictor", done.guarded)
    console.print()
    console.print("every call of the guarded run", style="bold")
    for row in done.decisions:
        told = "" if row["verdict"] == "allow" else f": {row['why']}"
        console.print(
            f"  {plain(row['call']):<36} {', '.join(row['impact']):<9} {row['verdict']:<6}"
            f" {row['took_us']:>6} µs  {row['reason']}{plain(told)}",
            style=None if row["verdict"] == "allow" else "red",
        )
    if done.spans:
        console.print("\nspans", style="bold")
        for line in done.spans:
            console.print(f"  {plain(line)}")
    else:
        console.print("\nspans: pip install opentelemetry-sdk shows them here")
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
