"""What a server on stdio is, as part of every pin: the program that runs, not only what it says.

Rules enforced here:

1. The program is what its name leads to, with the digest of what is in it; a script that an
   interpreter is given counts as well, and all files of a package that Python is given (`-m`).
2. A package that a runner fetches (`npx`) is the versions that are installed, with the integrity of
   each: another version with the same definitions is another server.
3. Arguments count as a digest: a token among them is in no file of ours.
4. What cannot be told apart is said to be so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lictor.canonical import Json, digest

INTERPRETERS: Final = re.compile(r"(python|pypy|node|deno|bun|ruby|perl|bash|sh)[\d.]*")
PYTHON: Final = re.compile(r"(python|pypy)[\d.]*")
RUNNERS: Final = frozenset({"npx", "uvx", "bunx", "pnpx", "pipx", "docker", "podman"})
"""What they run is not in their own file."""
FLOATING: Final = "version not known"
_EXACT: Final = re.compile(r"(@[^@/]+/)?[^@/]+(@|==)\d+(\.\d+)+[\w.+-]*")
_NAMING: Final = frozenset({"-p", "--package", "--from"})
_VALUED: Final = frozenset({"--with", "--python", "--registry"})
_SKIPPED: Final = ("-X", "-W")
_BLOCK: Final = 1 << 20
_log: Final = logging.getLogger("lictor.mcp")


def identity(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> str:
    """What this command runs, in words that change when that does.

    Args:
        command: Program and arguments.
        env: Environment that it starts with.
        cwd: Folder that it starts in.
    """
    env, folder = os.environ if env is None else env, Path(cwd or os.getcwd())
    program, arguments = command[0], list(command[1:])
    name = Path(program).name
    parts = [f"arguments {digest([*arguments])[:23]}"] if arguments else []
    if name in RUNNERS:
        return " ".join([name, *parts, _fetched(name, arguments, env, folder)])
    found = shutil.which(program, path=env.get("PATH")) or str(folder / program)
    real = Path(os.path.realpath(folder / found))
    parts = [str(real), _sealed(real), *parts]
    module = _module(arguments) if PYTHON.fullmatch(name) else ""
    if module:
        parts.append(_packaged(module, Path(found), env, folder))
    elif INTERPRETERS.fullmatch(name):
        script = next((each for each in arguments if not each.startswith("-")), "")
        if script and (folder / script).is_file():
            parts.append(f"script {_sealed(folder / script)}")
    return " ".join([*parts, *_installed(Path(found))])


def _module(arguments: list[str]) -> str:
    """The module that Python is told to run, if it is one."""
    left = iter(arguments)
    for each in left:
        if each in _SKIPPED:
            next(left, None)
        elif each.startswith(("--", *_SKIPPED)):
            continue
        elif not each.startswith("-") or each.startswith("-c"):
            return ""
        elif "m" in each:
            return each.partition("m")[2] or next(left, "")
    return ""


def _packaged(module: str, program: Path, env: Mapping[str, str], folder: Path) -> str:
    """All files of the package that a module is in, wherever this interpreter could find it."""
    top = module.partition(".")[0]
    seals: dict[str, Json] = {}
    for place in _places(program, env, folder):
        for each in (place / f"{top}.py", *sorted((place / top).rglob("*"))):
            if _counts(each):
                seals[str(each)] = _sealed(each)
    if seals:
        return f"module {module} {digest(seals)[:39]}"
    _log.warning(
        "python -m %s: its files are not found beside the interpreter, and other ones would not be "
        "noticed; start the program that the package has installed",
        module,
    )
    return f"module {module} ({FLOATING})"


def _places(program: Path, env: Mapping[str, str], folder: Path) -> Iterator[Path]:
    yield folder
    for each in filter(None, env.get("PYTHONPATH", "").split(os.pathsep)):
        yield folder / each
    for home in (program.parent.parent, Path(os.path.realpath(program)).parent.parent):
        for pattern in ("lib/python3*", "lib/pypy3*"):
            yield from sorted(home.glob(pattern))
            yield from sorted(home.glob(f"{pattern}/*-packages"))


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _fetched(runner: str, arguments: list[str], env: Mapping[str, str], folder: Path) -> str:
    spec = _spec(arguments)
    found = _npm(spec, env, folder) if runner == "npx" else ""
    if found:
        return found
    if _EXACT.fullmatch(spec):
        return spec
    _log.warning(
        "%s %s: which version runs cannot be told, and another one would not be noticed; "
        "name it: %s@VERSION",
        runner,
        spec,
        spec,
    )
    return f"{spec} ({FLOATING})"


def _spec(arguments: list[str]) -> str:
    """The package that a runner is told to fetch."""
    before = ""
    for each in arguments:
        if before in _NAMING:
            return each
        if not each.startswith("-") and before not in _VALUED:
            return each
        before = each
    return ""


def _npm(spec: str, env: Mapping[str, str], folder: Path) -> str:
    """The versions that npx runs: of the project it starts in, or of its own cache."""
    cache = env.get("npm_config_cache") or str(Path(env.get("HOME", "/")) / ".npm")
    key = hashlib.sha512(spec.encode()).hexdigest()[:16]
    bare = re.sub(r"(?<=.)@[^/]*$", "", spec)
    for lock in (
        folder / "node_modules/.package-lock.json",
        Path(cache) / "_npx" / key / "package-lock.json",
    ):
        packages = _packages(lock)
        main = packages.get(f"node_modules/{bare}")
        if main is not None:
            sealed = digest({path: [*each] for path, each in packages.items()})
            return f"{bare}@{main[0]} {main[1]} with all it needs {sealed[:23]}"
    return ""


def _packages(lock: Path) -> dict[str, tuple[str, str]]:
    """Path → version and integrity."""
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))["packages"]
        return {
            str(path): (str(each.get("version", "")), str(each.get("integrity", "")))
            for path, each in found.items()
            if path
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _installed(program: Path) -> Iterator[str]:
    """The Python package that has put this program beside its interpreter: its list of files."""
    line = f"../../../bin/{program.name},"
    for record in sorted(
        program.parent.parent.glob("lib/python*/site-packages/*.dist-info/RECORD")
    ):
        try:
            text = record.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if any(each.startswith(line) for each in text.splitlines()):
            yield f"{record.parent.name.removesuffix('.dist-info')} {_sealed(record)}"


def _sealed(path: Path) -> str:
    made = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                made.update(block)
    except OSError:
        return "unreadable"
    return f"sha256:{made.hexdigest()[:32]}"
