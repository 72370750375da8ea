"""A test made of what has just happened.

Rules enforced here:

1. Only what stands in the record, or is given beside it, goes into a test; a digest is no argument.
2. What the file holds stays byte for byte; the new test is read back before the file is written.
3. A test that would not pass is not written, unless the expectation was given by hand.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lictor.assemble import Project
from lictor.canonical import Json
from lictor.catalog.seen import write
from lictor.errors import PERMIT, REFUSALS, ConfigError
from lictor.model import Decision, Verdict
from lictor.policytest import NAME, PolicyTest, document, run, tests_of
from lictor.policytest.reading import parse
from lictor.protect import refuse_unsafe
from lictor.rehearse import Case, arguments_of, hidden, recorded_case, reviewed

_HEAD: Final = "# Tried by `lictor test`; `lictor test add last` adds what has just happened.\n"
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_/.@:-]*[A-Za-z0-9]")
_TRAPS: Final = frozenset("yes no on off true false null".split())


@dataclass(frozen=True, slots=True)
class Added:
    """What was written.

    Attributes:
        path: Into which file.
        text: The test.
        known: Where the same test stood already; then nothing was written.
        omitted: Arguments of a read that were not recorded and are left out.
        problem: Why it does not pass; only where the expectation was given.
    """

    path: Path
    text: str
    known: str = ""
    omitted: tuple[str, ...] = ()
    problem: str = ""


def add(
    project: Project,
    body: Mapping[str, Json],
    *,
    given: Sequence[str] = (),
    name: str = "",
    expect: Verdict | None = None,
) -> Added:
    """Adds a test of a recorded decision to the project's tests.

    Args:
        project: The project.
        body: Of the decision's record.
        given: `name=value` of arguments that are not recorded in clear.
        name: For the test.
        expect: What should have been decided, if not what was.

    Raises:
        ConfigError: The call cannot be decided again, or not as it was; the file is wrong.
    """
    case = _case(project, body, given)
    wanted = _recorded_verdict(body) if expect is None else expect
    test = PolicyTest(name or str(case.tool), "lictor test add", case, wanted)
    (result,) = run(project, [test])
    if expect is None:
        if result.decision.verdict != wanted:
            raise _decided_otherwise(body, wanted, result.decision)
        test = replace(test, because=_because(project, result.decision))
    added = _append(project, test, name)
    omitted = _omitted(project, case)
    return replace(added, omitted=omitted, problem=result.problem if expect is not None else "")


def _case(project: Project, body: Mapping[str, Json], given: Sequence[str]) -> Case:
    where = f"decision {body['id']}"
    case = recorded_case(project, body)
    if isinstance(case, str):
        raise ConfigError(where, f"no test can be made of it: {case}", "write the test by hand")
    known = reviewed(project, case.tool, where)
    more = arguments_of(known, given, "--arg")
    missing = [name for name in hidden(body) if name not in more]
    if not known.review.effectful:
        missing += sorted(known.tool.input_schema.get("required", ()))  # type: ignore[call-overload]
    missing = [name for name in missing if name not in {**case.arguments, **more}]
    if missing:
        options = " ".join(f"--arg {shlex.quote(each)}=…" for each in missing)
        raise ConfigError(
            where,
            f"not recorded in clear: {', '.join(missing)}",
            f"lictor test add {body['id']} {options}; to have them recorded from now on: "
            f"recordable = {json.dumps([*known.review.recordable, *missing])} in "
            f"{project.settings.catalog}",
        )
    return replace(case, arguments={**case.arguments, **more})


def _omitted(project: Project, case: Case) -> tuple[str, ...]:
    known = reviewed(project, case.tool, "")
    properties = known.tool.input_schema.get("properties", {})
    if known.review.effectful or not isinstance(properties, Mapping):
        return ()
    return tuple(sorted(set(properties) - set(case.arguments) - set(known.review.recordable)))


def _recorded_verdict(body: Mapping[str, Json]) -> Verdict:
    """Without people: what needed an answer is an ask, however it was answered."""
    code = str(body["code"])
    if body.get("met") or (code in REFUSALS and REFUSALS[code].stage == "ask"):
        return Verdict.ASK
    return Verdict(str(body["verdict"]))


def _decided_otherwise(body: Mapping[str, Json], was: Verdict, now: Decision) -> ConfigError:
    return ConfigError(
        f"decision {body['id']}",
        f"it was {was.value} ({body['code']}) and would be {now.verdict.value} ({now.reason}) now: "
        "the files have changed since, or it rested on what no test holds (spend so far, budgets, "
        "identity, an answer)",
        f"lictor explain {body['id']}; to write what it should be: --expect {now.verdict.value}",
    )


def _because(project: Project, decision: Decision) -> str:
    known = [each for each in decision.policies if each in project.policy.by_id]
    if known:
        return known[0]
    return "" if decision.reason == PERMIT else decision.reason


def _append(project: Project, test: PolicyTest, name: str) -> Added:
    path = project.path.parent / NAME
    before, indent, known = "", 0, list[PolicyTest]()
    if path.exists() or path.is_symlink():
        found = document(path)
        before = refuse_unsafe(path).read_bytes().decode("utf-8")
        if found is not None:
            known = tests_of(project, found, NAME)
            indent = found.indent
    for each in known:
        if _same(each, test):
            return Added(path, "", known=each.where)
    line_end = "\r\n" if "\r\n" in before else "\n"
    entry = line_end.join(" " * indent + line for line in _lines(test, name)) + line_end
    gap = "" if not before or before.endswith("\n") else line_end
    text = (before or _HEAD) + gap + entry
    _check(project, text, len(known), test)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    write(path, text, mode)
    return Added(path, entry)


def _check(project: Project, text: str, before: int, test: PolicyTest) -> None:
    problem = "the new test does not read back as it should"
    try:
        read = tests_of(project, parse(text, NAME), NAME)
        if len(read) == before + 1 and _same(read[-1], test):
            return
    except ConfigError as error:
        problem = f"a test cannot be added at its end ({error.problem})"
    raise ConfigError(NAME, problem, "write it as a list of `- tool: …` items")


def _same(one: PolicyTest, other: PolicyTest) -> bool:
    return (one.case, one.expect, one.because) == (other.case, other.expect, other.because)


def _lines(test: PolicyTest, name: str) -> list[str]:
    case, labels = test.case, sorted(test.case.session.labels)
    pairs: dict[str, Json] = {
        "name": name,
        "tool": str(case.tool),
        "arguments": dict(case.arguments),
        "as": case.agent,
        "for": case.user or "",
        "task": case.template or "",
        "session": {"labels": list[Json](labels)} if labels else {},
        "expect": test.expect.value,
        "because": test.because,
    }
    lines = [f"{key}: {_value(value)}" for key, value in pairs.items() if value]
    return [("- " if n == 0 else "  ") + line for n, line in enumerate(lines)]


def _value(value: Json) -> str:
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value.lower() not in _TRAPS
        return value if plain else _quoted(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(k)}: {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float):
        text = repr(value)
        mantissa, mark, exponent = text.partition("e")
        return text if not mark or "." in mantissa else f"{mantissa}.0e{exponent}"
    return json.dumps(value)


def _quoted(text: str) -> str:
    """A YAML text in double quotes; what would not show is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
