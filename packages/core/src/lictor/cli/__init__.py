"""The `lictor` command."""

from __future__ import annotations

import sys

import typer

from lictor.cli import (
    attack,
    audit,
    catalog,
    check,
    demo,
    explain,
    gateway,
    init,
    review,
    test,
    watch,
)
from lictor.errors import LictorError

app = typer.Typer(
    help="Run-time authorization of AI agents.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("review")(review.review)
app.command("check")(check.check)
app.command("watch")(watch.watch)
app.add_typer(test.app, name="test")
app.command("explain")(explain.explain)
app.add_typer(catalog.app, name="catalog")
app.add_typer(audit.app, name="audit")
app.command("attack")(attack.attack)
app.add_typer(gateway.app, name="gateway")


def main() -> None:
    """Runs the command; an error of ours is told in words and ends with exit code 2."""
    try:
        app()
    except LictorError as error:
        sys.stderr.write(f"lictor: {error.diagnostics()}\n")
        sys.exit(2)
