"""What a server on stdio is: another program under the same definitions is another server."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from lictor_mcp.gateway.identity import FLOATING, identity


def npx(home: Path, spec: str, version: str, integrity: str = "sha512-x") -> dict[str, str]:
    key = hashlib.sha512(spec.encode()).hexdigest()[:16]
    lock = home / ".npm/_npx" / key / "package-lock.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    packages = {
        "": {"name": "x"},
        "node_modules/@org/server": {"version": version, "integrity": integrity},
        "node_modules/zod": {"version": "3.0.0", "integrity": "sha512-z"},
    }
    lock.write_text(json.dumps({"packages": packages}))
    return {"HOME": str(home), "PATH": "/usr/bin"}


@pytest.mark.attack("X39")
@pytest.mark.parametrize("spec", ["@org/server", "@org/server@latest"])
def test_npx_that_resolves_to_something_else_is_another_server(tmp_path: Path, spec: str) -> None:
    command = ["npx", "-y", spec, "/data"]
    first = identity(command, env=npx(tmp_path, spec, "1.0.0"), cwd=str(tmp_path))
    again = identity(command, env=npx(tmp_path, spec, "1.0.0"), cwd=str(tmp_path))
    newer = identity(command, env=npx(tmp_path, spec, "1.0.1"), cwd=str(tmp_path))
    other = identity(command, env=npx(tmp_path, spec, "1.0.0", "sha512-y"), cwd=str(tmp_path))

    assert "@org/server@1.0.0 sha512-x" in first
    assert first == again
    assert len({first, newer, other}) == 3


@pytest.mark.attack("X39")
def test_a_package_that_another_needs_counts_as_well(tmp_path: Path) -> None:
    env = npx(tmp_path, "@org/server", "1.0.0")
    before = identity(["npx", "-y", "@org/server"], env=env, cwd=str(tmp_path))
    lock = next(tmp_path.rglob("package-lock.json"))
    lock.write_text(lock.read_text().replace("sha512-z", "sha512-evil"))
    assert identity(["npx", "-y", "@org/server"], env=env, cwd=str(tmp_path)) != before


def test_a_version_that_cannot_be_told_is_said_to_be_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = {"HOME": str(tmp_path)}
    with caplog.at_level(logging.WARNING, "lictor.mcp"):
        logging.getLogger("lictor.mcp").propagate = True
        assert FLOATING in identity(["uvx", "mcp-server-git"], env=env, cwd=str(tmp_path))
        assert "name it: mcp-server-git@VERSION" in caplog.text
        exact = identity(["uvx", "mcp-server-git@2.1.0"], env=env, cwd=str(tmp_path))
    assert FLOATING not in exact
    assert "mcp-server-git@2.1.0" in exact


def test_a_program_is_what_is_in_it_and_a_script_counts(tmp_path: Path) -> None:
    program, script = tmp_path / "python3", tmp_path / "server.py"
    program.write_text("one")
    program.chmod(0o755)
    script.write_text("print(1)")
    command = [str(program), "server.py"]
    before = identity(command, cwd=str(tmp_path))
    script.write_text("print(2)")
    after = identity(command, cwd=str(tmp_path))
    program.write_text("two")
    replaced = identity(command, cwd=str(tmp_path))
    elsewhere = identity([str(program), "server.py", "--more"], cwd=str(tmp_path))
    assert len({before, after, replaced, elsewhere}) == 4


def test_arguments_count_and_are_not_written_down(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_text("x")
    made = identity([str(program), "--token", "s3cret"])
    assert made != identity([str(program), "--token", "other"])
    assert "s3cret" not in made


def test_a_python_program_counts_with_the_files_of_its_package(tmp_path: Path) -> None:
    program = tmp_path / "bin/mcp-thing"
    program.parent.mkdir()
    program.write_text("#!python")
    record = tmp_path / "lib/python3.11/site-packages/mcp_thing-1.0.dist-info/RECORD"
    record.parent.mkdir(parents=True)
    record.write_text("../../../bin/mcp-thing,sha256=a,1\nmcp_thing/__init__.py,sha256=b,1\n")
    before = identity([str(program)])
    record.write_text("../../../bin/mcp-thing,sha256=a,1\nmcp_thing/__init__.py,sha256=c,1\n")
    assert "mcp_thing-1.0" in before
    assert identity([str(program)]) != before


def python(folder: Path) -> tuple[Path, Path]:
    """An environment with a package; its interpreter, and a file of the package."""
    program = folder / "env/bin/python3"
    inner = folder / "env/lib/python3.11/site-packages/mcp_thing/deep/tool.py"
    for each in (program, inner):
        each.parent.mkdir(parents=True)
        each.write_text("one")
    program.chmod(0o755)
    return program, inner


@pytest.mark.attack("X39")
@pytest.mark.parametrize(
    "given",
    [
        ["-m", "mcp_thing"],
        ["-m", "mcp_thing.deep", "--root", "/data"],
        ["-I", "-X", "dev", "-m", "mcp_thing"],
        ["-Im", "mcp_thing"],
        ["-mmcp_thing"],
    ],
)
def test_a_module_that_python_runs_counts_with_every_file_of_its_package(
    tmp_path: Path, given: list[str]
) -> None:
    program, inner = python(tmp_path)
    before = identity([str(program), *given], env={}, cwd=str(tmp_path))
    again = identity([str(program), *given], env={}, cwd=str(tmp_path))
    inner.write_text("two")
    changed = identity([str(program), *given], env={}, cwd=str(tmp_path))
    inner.with_name("more.py").write_text("")
    added = identity([str(program), *given], env={}, cwd=str(tmp_path))

    assert "module mcp_thing" in before
    assert before == again
    assert len({before, changed, added}) == 3


@pytest.mark.attack("X39")
@pytest.mark.parametrize("where", ["here", "path"])
def test_a_module_put_before_the_installed_one_is_another_server(
    tmp_path: Path, where: str
) -> None:
    program, _ = python(tmp_path)
    env = {"PYTHONPATH": "path"}
    command = [str(program), "-m", "mcp_thing"]
    before = identity(command, env=env, cwd=str(tmp_path))
    shadow = tmp_path / ("" if where == "here" else "path") / "mcp_thing.py"
    shadow.parent.mkdir(exist_ok=True)
    shadow.write_text("two")
    assert identity(command, env=env, cwd=str(tmp_path)) != before


def test_a_module_whose_files_are_not_found_is_said_to_be_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program, _ = python(tmp_path)
    with caplog.at_level(logging.WARNING, "lictor.mcp"):
        logging.getLogger("lictor.mcp").propagate = True
        assert FLOATING in identity([str(program), "-m", "other"], env={}, cwd=str(tmp_path))
    assert "python -m other" in caplog.text
