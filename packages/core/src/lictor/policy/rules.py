"""`[[rule]]` tables, for those who need no Cedar, compiled to Cedar that can be shown.

The rules of one tool are alternatives: a call is in order if one of them fits it, `who` and `allow`
together. A call that none fits gets the `otherwise` of the rules whose `who` fits, or of all of
them if nobody's does.

Rules enforced here:

1. A rule takes four keys and the limits of a grant, nothing else; what does not load names the
   nearest thing that would.
2. `who` is checked as a pair: the person the task runs for, and the agent that acts.
3. A limited argument that is absent is outside its limit.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Final

from lictor import forms, limits
from lictor.canonical import MAX_INTEGER, Json
from lictor.errors import ConfigError
from lictor.model import ToolKey
from lictor.policy.refuse import Refused, decimal_text
from lictor.policy.shape import Field, Record, Scalar, of_tool
from lictor.policy.source import Declared, PolicySource
from lictor.ports import Known

_KEYS: Final = ("tool", "who", "allow", "otherwise")
_OTHERWISE: Final = re.compile(r"deny|confirm:user|approval:[^\s:]+")
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS: Final = frozenset(
    "true false if then else in is like has permit forbid when unless".split()
)
_KINDS: Final = {"user": "User", "agent": "Agent", "role": "Role"}


@dataclass(frozen=True, slots=True)
class _Rule:
    """One table, compiled to expressions; an empty one is always true."""

    who: str
    limits: str
    otherwise: str

    @property
    def fits(self) -> str:
        return _all([self.who, self.limits])


def compile_rules(
    rules: Sequence[Mapping[str, object]],
    *,
    where: str,
    tools: Sequence[Known],
    declared: Declared,
) -> PolicySource:
    """Compiles `[[rule]]` tables to Cedar.

    Args:
        rules: As read from TOML.
        where: File and key, for errors and as the name of the source.
        tools: The catalog.
        declared: Known users, agents and roles.

    Raises:
        ConfigError: An unknown key, tool, argument or name, or a limit that is none.
    """
    catalog = {str(known.review.key): known for known in tools}
    by_tool: dict[str, list[_Rule]] = {}
    for number, rule in enumerate(rules, 1):
        here = f"{where} {number}"
        name = _tool(rule, here, catalog)
        by_tool.setdefault(name, []).append(_compile(rule, here, catalog[name], declared))
    policies = [text for name, found in by_tool.items() for text in _policies(name, found)]
    return PolicySource(where, "\n\n".join(policies) + "\n")


def _tool(rule: Mapping[str, object], here: str, catalog: Mapping[str, Known]) -> str:
    for key in rule:
        if key not in _KEYS:
            raise ConfigError(here, f"unknown key {key!r}", _nearest(key, _KEYS))
    name = rule.get("tool")
    if not isinstance(name, str):
        raise ConfigError(here, "has no tool", 'write tool = "server/name"')
    try:
        key = str(ToolKey.parse(name))
    except ValueError as error:
        raise ConfigError(here, str(error), _nearest(name, catalog)) from None
    if key not in catalog:
        raise ConfigError(here, f"the catalog has no tool {name!r}", _nearest(name, catalog))
    return key


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 3, 0.4)
    return f"write {' or '.join(near)}" if near else f"write one of: {', '.join(names) or 'none'}"


def _compile(rule: Mapping[str, object], here: str, known: Known, declared: Declared) -> _Rule:
    otherwise = rule.get("otherwise", "deny")
    if not isinstance(otherwise, str) or not _OTHERWISE.fullmatch(otherwise):
        raise ConfigError(
            here, f"otherwise = {otherwise!r}", "write deny, confirm:user or approval:ROLE"
        )
    allow = rule.get("allow", {})
    if not isinstance(allow, Mapping):
        raise ConfigError(
            here, "allow is no table", 'write allow = { amount = { min = "0", max = "500" } }'
        )
    shape = of_tool(known.tool, known.review)
    fields = {field.name: field for field in shape.fields if not field.counts}
    parts = []
    for name, raw in allow.items():
        at = f"{here} allow.{name}"
        if name not in fields:
            hidden = name in (shape.names or ())
            problem = (
                "policy cannot see this argument" if hidden else "the tool has no such argument"
            )
            raise ConfigError(at, problem, _nearest(name, fields))
        parts.append(_limit(limits.parse(raw, at), fields[name], at))
    who = _who(rule["who"], here, declared) if "who" in rule else ""
    return _Rule(who, _all(parts), otherwise)


def _policies(tool: str, rules: Sequence[_Rule]) -> Iterable[str]:
    scope = f"(principal, action == Lictor::Action::{quoted(tool)}, resource)"
    fits = _any([rule.fits for rule in rules])
    nobody = _not(_any([rule.who for rule in rules]))
    for number, rule in enumerate(rules, 1):
        name = f"rule:{tool}" + (f":{number}" if number > 1 else "")
        concerns = _any([rule.who, nobody]) if len(rules) > 1 else ""
        asks = rule.otherwise != "deny"
        condition = concerns if asks else rule.fits
        yield (
            f"@id({quoted(name)})\n@reason({quoted('A rule allows this call.')})\n"
            f"permit {scope}{_clause(condition)};"
        )
        if fits:
            yield _otherwise(f"{name}:otherwise", scope, rule.otherwise, concerns, fits)


def _otherwise(name: str, scope: str, otherwise: str, concerns: str, fits: str) -> str:
    head = f"@id({quoted(name)})\n"
    if otherwise == "deny":
        reason = "The rules for this tool do not allow this call."
        return (
            f"{head}@reason({quoted(reason)})\n"
            f"forbid {scope}{_clause(concerns)}{_clause(_not(fits))};"
        )
    reason = "The rules for this tool leave this call to a person."
    return (
        f"{head}@reason({quoted(reason)})\n@require({quoted(otherwise)})\n"
        f"forbid {scope}{_clause(concerns)}{_clause(_not(fits))}\n"
        f"unless {{ context.met.contains({quoted(otherwise)}) }};"
    )


# -- expressions; the empty text is always true ---------------------------------------------------


def _all(parts: Iterable[str]) -> str:
    some = [part for part in parts if part]
    return " && ".join(f"({part})" for part in some) if len(some) > 1 else "".join(some)


def _any(parts: Sequence[str]) -> str:
    if not all(parts):
        return ""
    return " || ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)


def _not(part: str) -> str:
    return f"!({part})" if part else "false"


def _clause(condition: str) -> str:
    return f"\nwhen {{ {condition} }}" if condition else ""


def quoted(text: str) -> str:
    """Text as a Cedar string."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if " " <= character <= "~" else f"\\u{{{ord(character):x}}}"


def _starting(text: str) -> str:
    return quoted(text).removesuffix('"').replace("*", "\\*") + '*"'


# -- who ------------------------------------------------------------------------------------------


def _who(raw: object, here: str, declared: Declared) -> str:
    names = [raw] if isinstance(raw, str) else raw
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ConfigError(here, "who is no name or list of names", 'write who = ["alice", "bot"]')
    if not names:
        problem = "who is empty, which would be nobody"
        raise ConfigError(here, problem, "leave who out for everybody, or name somebody")
    people: list[str] = []
    agents: list[str] = []
    for name in names:
        kind, uid = _named(name, here, declared)
        entity = f"Lictor::{kind}::{quoted(uid)}"
        if kind == "Agent":
            agents.append(f"principal == {entity}")
        else:
            people.append(f"context.grant.user {'in' if kind == 'Role' else '=='} {entity}")
    parts = []
    if people:
        parts.append(f"context.grant has user && ({' || '.join(people)})")
    if agents:
        parts.append(f"!(principal is Lictor::Agent) || {' || '.join(agents)}")
    return _all(parts)


def _named(name: str, here: str, declared: Declared) -> tuple[str, str]:
    known = {"user": declared.users, "agent": declared.agents, "role": declared.roles}
    prefix, colon, rest = name.partition(":")
    kinds = [prefix] if colon and prefix in known else list(known)
    wanted = rest if colon and prefix in known else name
    (uid,) = declared.qualified(frozenset({wanted}))
    found = [kind for kind in kinds if uid in declared.qualified(known[kind])]
    if not found and kinds == ["user"] and "*" in declared.users:
        found = ["user"]
    if not found:
        everybody = frozenset().union(*(known[kind] for kind in kinds))
        raise ConfigError(here, f"nobody declares {name!r}", _nearest(wanted, everybody))
    if len(found) > 1:
        choices = " or ".join(f"{kind}:{wanted}" for kind in found)
        raise ConfigError(here, f"{name!r} is the name of several", f"write {choices}")
    return _KINDS[found[0]], uid


# -- limits ---------------------------------------------------------------------------------------


def _limit(limit: limits.Limit, field: Field, at: str) -> str:
    if isinstance(limit, limits.Any):
        return ""
    plain = _PLAIN.fullmatch(field.name) and field.name not in _WORDS
    name = field.name if plain else quoted(field.name)
    here = f"context.input.{name}" if plain else f"context.input[{name}]"
    test = _test(limit, field, here, at)
    return test if field.required else f"context.input has {name} && ({test})"


def _test(limit: limits.Limit, field: Field, here: str, at: str) -> str:
    shape = field.shape
    match limit, shape:
        case limits.Equals(), _:
            return _equals(limit.value, field, here, at)
        case limits.OneOf(), _:
            return _any([_equals(value, field, here, at) for value in limit.values])
        case limits.Range(), Scalar(type="Long"):
            low, high = _integers(limit, at)
            return f"{here} >= {low} && {here} <= {high}"
        case limits.Range(), Scalar(type="decimal"):
            low_text, high_text = _decimal(limit.min, at), _decimal(limit.max, at)
            return f"{here}.greaterThanOrEqual({low_text}) && {here}.lessThanOrEqual({high_text})"
        case limits.Prefix(), Scalar(type="String", form=""):
            return f"{here} like {_starting(limit.text)}"
        case limits.PathUnder(), Scalar(form="path"):
            return _under(here, limit.root)
        case limits.UrlUnder(), Record(form="uri"):
            return _all([*_authority(limit.uri, here), _under(f"{here}.path", limit.uri.path)])
    raise ConfigError(at, f"{limits.describe(limit)} does not fit this argument", _advice(limit))


def _advice(limit: limits.Limit) -> str:
    match limit:
        case limits.PathUnder():
            return 'give the argument its format in catalog.toml: formats = { … = "path" }'
        case limits.UrlUnder():
            return 'give the argument its format in catalog.toml: formats = { … = "uri" }'
        case limits.Prefix():
            return "use path_under or url_under for an argument with a format"
    return "use equals, one_of, or a policy in Cedar"


def _integers(limit: limits.Range, at: str) -> tuple[int, int]:
    low = max(int(limit.min.to_integral_value(ROUND_CEILING)), -MAX_INTEGER)
    high = min(int(limit.max.to_integral_value(ROUND_FLOOR)), MAX_INTEGER)
    if low > high:
        raise ConfigError(at, "no integer lies in this range", "widen it")
    return low, high


def _decimal(number: object, at: str) -> str:
    try:
        return f"decimal({quoted(decimal_text(number, at))})"
    except Refused as refused:
        raise ConfigError(at, refused.detail, "write at most four decimal places") from None


def _equals(value: Json, field: Field, here: str, at: str) -> str:
    match field.shape, value:
        case Scalar(type="Bool"), bool():
            return f"{here} == {'true' if value else 'false'}"
        case Scalar(type="Long"), int() if not isinstance(value, bool):
            return f"{here} == {value}"
        case Scalar(type="decimal"), int() | float() if not isinstance(value, bool):
            return f"{here} == {_decimal(value, at)}"
        case Scalar(type="String"), str():
            return f"{here} == {quoted(value)}"
        case Record(form="email" | "uri"), str():
            return _formed(value, field.shape, here, at)
    raise ConfigError(
        at, f"{value!r} does not fit the argument's type", "write a value of its type, or Cedar"
    )


def _formed(value: str, shape: Record, here: str, at: str) -> str:
    try:
        parsed = forms.FORMS[shape.form](value)
    except forms.NotCanonical as error:
        hint = f"write {error.canonical}" if error.canonical else "write its canonical form"
        raise ConfigError(at, error.problem, hint) from None
    if isinstance(parsed, forms.Email):
        return f"{here}.local == {quoted(parsed.local)} && {here}.domain == {quoted(parsed.domain)}"
    if not isinstance(parsed, forms.Uri):
        raise TypeError(f"{shape.form} is not seen in parts")
    query = (
        f"!({here} has query)"
        if parsed.query is None
        else f"{here} has query && {here}.query == {quoted(parsed.query)}"
    )
    return _all([*_authority(parsed, here), f"{here}.path == {quoted(parsed.path)}", query])


def _authority(uri: forms.Uri, here: str) -> list[str]:
    port = f"{here} has port && {here}.port == {uri.port}" if uri.port else f"!({here} has port)"
    return [f"{here}.scheme == {quoted(uri.scheme)}", f"{here}.host == {quoted(uri.host)}", port]


def _under(here: str, root: str) -> str:
    below = root if root.endswith("/") else root + "/"
    return f"{here} == {quoted(root)} || {here} like {_starting(below)}"
