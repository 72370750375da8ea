"""No message leads nowhere: what a text says to write or run can be written or run.

Rules enforced here:

1. Every `lictor …` in a text of the source names a command and options that exist.
2. Every line of Python or TOML in a mend is one, and its names are those of the code.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

import lictor
from lictor import settings
from lictor.catalog import entries
from lictor.cli import app
from lictor.errors import REFUSALS
from lictor.limits import _WORDS as LIMITS

ROOT = Path(__file__).parents[1]
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
ERRORS = {"ConfigError": 2, "StoreError": 1, "Refusal": 2, "Unguardable": 1}
"""Which argument of what is raised is the mend."""
HOLE = "NAME"
"""Stands for what is only known at run time."""
PROSE = {"lictor on this machine", "lictor names"}
"""Where the word is the program and no command."""


@dataclass(frozen=True)
class Text:
    """A text of the source, with what is only known at run time left open."""

    where: str
    text: str


def rendered(node: ast.expr) -> str | None:
    """The text of a literal; `None` for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = (rendered(part) for part in node.values)
        return "".join(HOLE if part is None else part for part in parts)
    return None


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text literal that is no docstring."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        if isinstance(node, ast.JoinedStr):
            skipped.update(node.values)
        if isinstance(node, ast.expr) and node not in skipped:
            text = rendered(node)
            if text is not None:
                yield node.lineno, text


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def mends(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The mends: an argument of what is raised, or what stands behind the word."""
    for line, text in literals(tree):
        for part in re.findall(r"(?:mend|run|next): *(.+)", text):
            yield line, part
    named = {
        target.id: text
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(target := node.target, ast.Name)
        if node.value is not None and (text := rendered(node.value)) is not None
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or name_of(node) not in ERRORS:
            continue
        place = ERRORS[name_of(node)]
        if place < len(node.args):
            yield from literals(node.args[place])
            for part in ast.walk(node.args[place]):
                if isinstance(part, ast.Name) and part.id in named:
                    yield node.lineno, named[part.id]


def collected(find: object) -> list[Text]:
    found = dict[str, Text]()
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        for line, text in find(tree):  # type: ignore[operator]
            found.setdefault(text, Text(f"{path.name}:{line}", text))
    return list(found.values())


TEXTS, MENDS = collected(literals), collected(mends)


# -- commands -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command named in a text."""

    where: str
    text: str

    def __str__(self) -> str:
        return self.text


def commands(texts: list[Text]) -> Iterator[Command]:
    """`lictor …` up to the punctuation behind it, where a word follows."""
    for each in texts:
        for found in re.finditer(r"(?<![\w/.@\"-])lictor (?=[a-z])([^,;:()\n|“”`]*)", each.text):
            text = f"lictor {found[1]}".strip().rstrip(".")
            if text not in PROSE and not any(text.startswith(f"{each} ") for each in PROSE):
                yield Command(each.where, text)


COMMANDS = sorted({each.text: each for each in commands(TEXTS)}.values(), key=str)
MENDING = frozenset(each.text for each in commands(MENDS))


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and what stands behind it.

    Raises:
        AssertionError: There is none.
    """
    found: Any = typer.main.get_command(app)
    while isinstance(found, TyperGroup):
        if found.invoke_without_command and (not words or words[0].startswith("-")):
            break
        assert words, f"{found.name} needs one of {sorted(found.commands)}"
        name, *words = words
        assert name in found.commands, f"no command {name!r} among {sorted(found.commands)}"
        found = found.commands[name]
    return found, words


def wrong(text: str, *, mend: bool = True) -> str:
    """What is wrong with a command in a text; empty if nothing.

    Args:
        text: From `lictor` on.
        mend: It is to be run as it stands; else it may leave out what it is about.
    """
    try:
        words = text.split(" -- ")[0].split()[1:]  # behind it stands somebody else's command
        command, rest = resolved(words)
    except AssertionError as error:
        return str(error)
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    unknown = [word for word in rest if re.fullmatch(r"--?[a-z]+[a-z-]*", word)]
    unknown = [word for word in unknown if word not in options]
    if unknown:
        return f"{command.name} has no {unknown}"
    demands = mend and any(p.required for p in command.params if p.param_type_name == "argument")
    if demands and not (rest and re.fullmatch(r"last|NAME|<[\w -]+>|\w+/\w+|ID", rest[0])):
        return f"{command.name} needs what it is about"
    return ""


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_in_a_text_exists(command: Command) -> None:  # rule 1
    assert wrong(command.text, mend=command.text in MENDING) == "", (
        f"{command.where}: {command.text}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "lictor revieww",
        "lictor catalog",
        "lictor catalog unlock",
        "lictor review --everything",
        "lictor explain shows it",
    ],
)
def test_a_command_that_leads_nowhere_would_be_found(text: str) -> None:
    assert wrong(text) != ""


def test_the_commands_are_found() -> None:
    found = {each.text for each in COMMANDS}
    assert {"lictor review", "lictor check", "lictor explain NAME"} <= found
    assert len(found) >= 15


# -- lines ----------------------------------------------------------------------------------------

CALL = re.compile(r"(?<![\w.(])(?:with |await )?(?:[a-zA-Z_]\w*\.)*[a-zA-Z_]\w*\(")
SECTION = re.compile(r"(?<![\w=] )(?<![\w(=\[])\[\[?[a-z][\w.\"*-]*\]?\]")
SETTING = re.compile(
    r"(?<![\w.(])([a-z_]+) = "
    r"(\"[^\"]*\"|\{(?:[^{}]|\{[^}]*\})*\}|\[[^\]]*\]|true|false|[\d.]+)"
)
LOADED = {
    "Gate": lictor.Gate,
    "gate": lictor.Gate,
    "task": lictor.gate.Task,
}


def balanced(text: str, start: int) -> str:
    depth = 0
    for end in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0 and text[end] == ")":
            return text[start : end + 1]
    return text[start:]


PYTHON = [
    Text(each.where, found[0][:-1] + balanced(each.text, found.end() - 1))
    for each in MENDS
    for found in CALL.finditer(each.text)
]
TOML = [
    Text(each.where, found[0])
    for each in MENDS
    for pattern in (SECTION, SETTING)
    for found in pattern.finditer(each.text)
]


@pytest.mark.parametrize("line", PYTHON, ids=lambda line: line.text)
def test_a_line_of_python_compiles_and_names_what_exists(line: Text) -> None:  # rule 2
    source = f"{line.text}: pass" if line.text.startswith("with ") else line.text
    tree = ast.parse(f"async def f():\n    {source}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = LOADED.get(node.value.id)
            if owner is not None:
                assert hasattr(owner, node.attr) or node.attr in ("id",), f"{line.where}: {source}"


KEYS = frozenset(
    key
    for module in (settings, entries)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel)
    for key in model.model_fields
) | {"allow", "otherwise", "who", *LIMITS}
"""Keys of `lictor.toml` and `catalog.toml`, those of `[[rule]]` and of limits among them."""


@pytest.mark.parametrize("line", TOML, ids=lambda line: line.text)
def test_a_line_of_toml_parses_and_its_key_exists(line: Text) -> None:  # rule 2
    parsed = tomllib.loads(re.sub(r"\.\.\.|…", "", line.text))
    (key,) = parsed
    assert key in KEYS, f"{line.where}: {line.text}"


def test_there_are_lines_to_look_at() -> None:
    assert len(PYTHON) >= 10
    assert len(TOML) >= 15
    assert {each.mend for each in REFUSALS.values()} <= {each.text for each in MENDS}


# -- and there is always one ----------------------------------------------------------------------

PASSED_ON = {"problem"}
"""Texts that another function has made: what is wrong with a grant, in words of its own."""


def task_errors() -> Iterator[Text]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and name_of(node) == "TaskError":
                text = rendered(node.args[0])
                if text is None:
                    text = ast.unparse(node.args[0])
                yield Text(f"{path.name}:{node.lineno}", text)


@pytest.mark.parametrize("error", list(task_errors()), ids=lambda error: error.text[:50])
def test_an_error_of_a_task_says_what_mends_it(error: Text) -> None:
    passed_on = error.text in PASSED_ON or error.text.endswith(f": {HOLE}")
    assert (
        passed_on or re.search(r"\n  mend: \S", error.text) or error.text.endswith(f"\n{HOLE}")
    ), f"{error.where}: {error.text}"
