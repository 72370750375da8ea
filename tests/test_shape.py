"""The house: imports go one way, core knows no framework, only telemetry knows OpenTelemetry."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lictor

ROOT = Path(__file__).parents[1]
CORE = ROOT / "packages/core/src/lictor"

LAYERS = [
    {"canonical"},
    {"model"},
    {"errors"},
    {"ports"},
    {"closing", "forms", "telemetry_names"},
    {"limits", "schema"},
    {
        "ambient",
        "approval",
        "audit",
        "catalog",
        "grant",
        "home",
        "policy",
        "protect",
        "session",
        "settings",
        "store",
        "telemetry_event",
        "telemetry_host",
        "telemetry_none",
        "telemetry_remote",
        "telemetry_tally",
        "telemetry",
        "template",
    },
    {"drive", "offload", "review", "task"},
    {"attempt"},
    {"verdicts"},
    {"record", "stages"},
    {"pipeline", "opening"},
    {"gate"},
    {"assemble", "reload"},
    {"dev", "gather", "place", "rehearse", "subagent"},
    {"attack", "policytest"},
    {"cli", "demo", "helpers", "testing"},
]
"""A module imports from layers above its own only; parts of one layer do not know each other."""

SAME_ROOM = [
    {
        "telemetry",
        "telemetry_event",
        "telemetry_host",
        "telemetry_none",
        "telemetry_remote",
        "telemetry_tally",
    },
    {"template", "settings"},
    {"pipeline", "opening"},
    {"assemble", "reload"},
]
"""Neighbours of one layer that may know each other: one room in two files, or types only."""


def room(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(name: str) -> int:
    return next(n for n, layer in enumerate(LAYERS) if name in layer)


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(CORE)))
def test_imports_go_one_way(path: Path) -> None:
    me = room(path)
    if me == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "lictor" or len(parts) < 2 or not (CORE / parts[1]).with_suffix("").name:
            continue
        other = parts[1]
        if other == me or not ((CORE / f"{other}.py").exists() or (CORE / other).is_dir()):
            continue
        if any({me, other} <= same for same in SAME_ROOM) or lazily(path, name):
            continue
        assert level(other) < level(me), f"{me} imports {other}"


def lazily(path: Path, name: str) -> bool:
    """The gate's own constructor loads `assemble` when it is called: nothing else may look up."""
    return path.name == "gate.py" and name.startswith(("lictor.assemble", "lictor.dev"))


@pytest.mark.parametrize("path", modules(CORE), ids=lambda p: str(p.relative_to(CORE)))
def test_core_knows_no_framework_and_only_telemetry_knows_opentelemetry(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}

    assert not roots & {"langchain", "langchain_core", "langgraph", "llama_index", "mcp"}
    assert not {each for each in roots if each.startswith("lictor_")}
    if not room(path).startswith("telemetry"):
        assert "opentelemetry" not in roots


@pytest.mark.parametrize("adapter", ["langchain", "llamaindex", "mcp"])
def test_an_adapter_imports_its_host_and_lictor_only(adapter: str) -> None:
    hosts = {
        "langchain": {"langchain", "langchain_core", "langgraph", "langsmith", "pydantic"},
        "llamaindex": {"llama_index", "pydantic", "pydantic_core", "workflows"},
        "mcp": {
            *("anyio", "fastmcp", "h11", "httpx", "mcp", "mcp_types", "pydantic", "rfc8785"),
            *("starlette", "uvicorn"),
        },
    }[adapter]
    folder = ROOT / f"packages/{adapter}/src"
    for path in modules(folder):
        roots = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        allowed = hosts | {"lictor", f"lictor_{adapter}"}
        if "demo" in path.parts:
            allowed |= {"opentelemetry"}
        assert roots <= allowed, path


def test_the_public_names_are_few_and_importing_them_is_light() -> None:
    assert len(lictor.__all__) <= 15
    heavy = "sqlalchemy", "pydantic", "cedarpy", "typer", "rich", "langchain_core"
    code = f"import sys, lictor; sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"import lictor loads {done.stderr}"


def test_only_the_testing_room_has_unsafe_things() -> None:
    for path in modules(CORE):
        if room(path) == "testing":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert not node.name.startswith("Unsafe"), path
