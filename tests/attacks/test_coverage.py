"""Every known bypass has a test, and every test names a known bypass."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from lictor.testing.kit import attacks

HERE = Path(__file__).parent
OURS = {"LC", "LI", "CED", "ARG", "SES", "OPS", "ID", "MCP"}


def known() -> dict[str, dict[str, object]]:
    return dict(attacks())


def load(name: str) -> dict[str, dict[str, object]]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


def marked() -> set[str]:
    """The ids in `@pytest.mark.attack("X01", …)` of all tests: some need a server of their own."""
    found: set[str] = set()
    for path in HERE.parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "attack"
            ):
                found |= {str(each.value) for each in node.args if isinstance(each, ast.Constant)}
    return found


def test_every_id_of_our_hosts_has_a_test_or_says_what_it_waits_for() -> None:
    ids, later = known(), load("later.toml")
    needed = {each for each, row in ids.items() if OURS & set(row["hosts"])}  # type: ignore[call-overload]
    waiting = {each for each, row in later.items() if "part" not in row}

    assert sorted(needed - marked() - waiting) == []


def test_nothing_waits_that_is_tested_and_nothing_is_tested_that_nobody_knows() -> None:
    ids, later = known(), load("later.toml")

    assert sorted(each for each in marked() & set(later) if "part" not in later[each]) == []
    assert sorted(marked() - set(ids)) == []
    assert sorted(set(later) - set(ids)) == []
    assert all(row["waits_for"] for row in later.values())
