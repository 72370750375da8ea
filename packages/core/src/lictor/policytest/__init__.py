"""`policy_tests.yaml`: what a project's policies are to decide, written down and tried.

Rules enforced here:

1. A test is decided by the real engine over the project's own files; nothing in it is simulated but
   what the conversation has seen before.
2. A name that the project does not know is an error, not a denial: a test that is spelt wrongly
   must not pass because nothing is permitted to nobody.
3. A denial before policy was asked does not count as the denial that was expected, unless the test
   names its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from lictor.assemble import Project
from lictor.canonical import Json
from lictor.errors import PERMIT, REFUSALS, ConfigError, TaskError
from lictor.model import Decision, Kind, ToolKey, Verdict
from lictor.policytest.reading import Document, Marked, parse
from lictor.ports import SessionFacts
from lictor.protect import refuse_unsafe
from lictor.rehearse import Case, nearest, rehearsing, reviewed
from lictor.settings import LocalDirectory
from lictor.template import key_of

NAME: Final = "policy_tests.yaml"
KEYS: Final = ("name", "tool", "arguments", "as", "for", "task", "session", "expect", "because")
_SESSION: Final = ("labels", "sources", "spent", "calls", "effects")
_EXAMPLE: Final = "see docs/testing.md, or: lictor test add last"


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One test.

    Attributes:
        name: Its own, or the tool's.
        where: File and line.
        case: The call.
        expect: What is to be decided.
        because: A reason code or policy id that must be among the reasons; empty for any.
    """

    name: str
    where: str
    case: Case
    expect: Verdict
    because: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """How a test went; `problem` is empty if it passed."""

    test: PolicyTest
    decision: Decision
    problem: str = ""


def read_tests(project: Project) -> list[PolicyTest]:
    """The tests of a project.

    Raises:
        ConfigError: There are none, or one is wrong; names the line.
    """
    path = project.path.parent / NAME
    if not path.exists():
        raise ConfigError(str(path), "does not exist", "lictor test add last makes it")
    return tests_of(project, document(path), NAME)


def document(path: Path) -> Document | None:
    """The file as YAML.

    Raises:
        ConfigError: It cannot be read or is no YAML.
    """
    try:
        text = refuse_unsafe(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}", "save it as UTF-8") from None
    return parse(text, path.name)


def tests_of(project: Project, found: Document | None, name: str) -> list[PolicyTest]:
    """The tests of a document.

    Raises:
        ConfigError: There are none, or one is wrong.
    """
    items = None if found is None else found.root.value
    if not isinstance(items, list) or not items:
        raise ConfigError(name, "holds no list of tests", _EXAMPLE)
    return [_Reader(project, name, item).test() for item in items]


def run(project: Project, tests: Iterable[PolicyTest]) -> Iterator[Result]:
    """Tries tests.

    Raises:
        ConfigError: There can be no such task.
    """
    with rehearsing(project) as rehearsal:
        for test in tests:
            try:
                decision, _ = rehearsal.decide(test.case)
            except TaskError as error:
                raise ConfigError(test.where, str(error), "correct as, for or task") from None
            yield Result(test, decision, _problem(test, decision))


def _problem(test: PolicyTest, decision: Decision) -> str:
    reasons = (decision.reason, *decision.policies, *decision.asks)
    was = f"{decision.verdict.value} ({', '.join(dict.fromkeys(reasons))})"
    if decision.verdict != test.expect:
        return f"expected {test.expect.value}, was {was}"
    if test.because:
        return "" if test.because in reasons else f"expected because of {test.because}, was {was}"
    early = decision.reason != PERMIT and REFUSALS[decision.reason].stage == "schema"
    if early:
        return (
            f"was {was}: the call itself is wrong, so policy was never asked; mend it, or write "
            f"because: {decision.reason} if this is what you mean"
        )
    return ""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one item of the list."""

    project: Project
    file: str
    item: Marked

    def test(self) -> PolicyTest:
        parts = self._table(self.item, KEYS, "a test")
        for needed in ("tool", "as", "expect"):
            if needed not in parts:
                raise self._error(self.item, f"has no {needed}", _EXAMPLE)
        tool = self._tool(parts["tool"])
        because = self._because(parts.get("because"))
        case = Case(
            tool,
            self._arguments(tool, parts.get("arguments"), because),
            self._party(Kind.AGENT, parts["as"]),
            self._party(Kind.USER, parts["for"]) if "for" in parts else None,
            self._template(parts.get("task")),
            self._session(parts.get("session")),
        )
        name = self._text(parts["name"]) if "name" in parts else f"{tool}"
        where = f"{self.file}:{self.item.line}"
        return PolicyTest(name, where, case, self._expect(parts["expect"]), because)

    def _table(self, marked: Marked, keys: Iterable[str], what: str) -> Mapping[str, Marked]:
        if not isinstance(marked.value, dict):
            raise self._error(marked, f"{what} is a table of keys", _EXAMPLE)
        for key, each in marked.value.items():
            if key not in keys:
                raise self._error(each, f"{what} has no key {key!r}", nearest(key, keys))
        return marked.value

    def _text(self, marked: Marked) -> str:
        if not isinstance(marked.value, str) or not marked.value:
            raise self._error(marked, f"{marked.value!r} is no text", "quote it")
        return marked.value

    def _tool(self, marked: Marked) -> ToolKey:
        try:
            key = key_of(self._text(marked))
        except TaskError as error:
            raise self._error(marked, str(error), "write server/name") from None
        reviewed(self.project, key, self._at(marked))
        return key

    def _arguments(self, tool: ToolKey, marked: Marked | None, because: str) -> Mapping[str, Json]:
        if marked is None or marked.value is None:
            return {}
        if not isinstance(marked.value, dict):
            raise self._error(marked, "arguments are name: value", "arguments: {amount: 5}")
        definition = reviewed(self.project, tool, "").tool.definition()["input_schema"]
        schema = definition if isinstance(definition, dict) else {}
        properties = schema.get("properties")
        known = list(properties) if isinstance(properties, dict) else []
        open_ended = schema.get("additionalProperties") not in (None, False)
        for name, each in marked.value.items():
            if name not in known and not open_ended and because != "input_invalid":
                raise self._error(each, f"{tool} has no argument {name!r}", nearest(name, known))
        return {name: each.plain() for name, each in marked.value.items()}

    def _party(self, kind: Kind, marked: Marked) -> str:
        name, directory = self._text(marked), LocalDirectory(self.project.settings)
        if directory.principal(kind, name) is None:
            word = f"{kind.lower()}s"
            problem = f"nobody declares {kind.lower()} {name!r}"
            near = nearest(name, directory.near(kind, name))
            raise self._error(marked, problem, f"add [{word}.{name}]; {near}")
        return name

    def _template(self, marked: Marked | None) -> str | None:
        if marked is None:
            return None
        name = self._text(marked)
        if name not in self.project.templates:
            mend = nearest(name, self.project.templates)
            raise self._error(marked, f"there is no [tasks.{name}]", mend)
        return name

    def _session(self, marked: Marked | None) -> SessionFacts:
        if marked is None:
            return SessionFacts()
        parts = self._table(marked, _SESSION, "session")
        return SessionFacts(
            labels=frozenset(self._labels(parts.get("labels"))),
            sources=frozenset(self._texts(parts.get("sources"))),
            calls=self._count(parts.get("calls")),
            effects=self._count(parts.get("effects")),
            spent=self._amount(parts.get("spent")),
        )

    def _labels(self, marked: Marked | None) -> Iterator[str]:
        known = self.project.declared.labels
        for label in self._texts(marked):
            if label not in known and marked is not None:
                mend = nearest(label, known)
                raise self._error(marked, f"no label {label!r} is declared", mend)
            yield label

    def _texts(self, marked: Marked | None) -> list[str]:
        if marked is None:
            return []
        if not isinstance(marked.value, list):
            raise self._error(marked, "is no list", "labels: [untrusted]")
        return [self._text(each) for each in marked.value]

    def _count(self, marked: Marked | None) -> int:
        if marked is None:
            return 0
        if type(marked.value) is not int or not 0 <= marked.value < 2**53:
            raise self._error(marked, f"{marked.value!r} is no count", "write 3")
        return marked.value

    def _amount(self, marked: Marked | None) -> Decimal:
        if marked is None:
            return Decimal(0)
        try:
            if isinstance(marked.value, bool) or not isinstance(marked.value, str | int | float):
                raise InvalidOperation
            amount = Decimal(str(marked.value))
            if not amount.is_finite() or not 0 <= amount < 10**12:
                raise InvalidOperation
        except InvalidOperation:
            raise self._error(marked, f"{marked.value!r} is no amount", "spent: 120.50") from None
        return amount

    def _expect(self, marked: Marked) -> Verdict:
        text, known = self._text(marked), [each.value for each in Verdict]
        if text not in known:
            raise self._error(marked, f"{text!r} cannot be expected", nearest(text, known))
        return Verdict(text)

    def _because(self, marked: Marked | None) -> str:
        if marked is None:
            return ""
        text = self._text(marked)
        policies = self.project.policy.by_id
        asks = {each.require for each in policies.values() if each.require}
        known = {PERMIT, *REFUSALS, *policies, *asks}
        if text not in known:
            problem = f"{text!r} is no reason code and no policy"
            raise self._error(marked, problem, nearest(text, known))
        return text

    def _at(self, marked: Marked) -> str:
        return f"{self.file}:{marked.line}"

    def _error(self, marked: Marked, problem: str, mend: str) -> ConfigError:
        return ConfigError(self._at(marked), problem, mend)
