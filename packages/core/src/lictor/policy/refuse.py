"""What may not be put before the policies, whatever the types say.

Rules enforced here:

1. Names that Cedar's JSON form gives a meaning are refused at every depth.
2. A number is exact in four decimal places, or refused.
3. Text is short, in Unicode form NFC, and in the canonical form of its format, or refused.
4. What is said of a refusal holds no value that may not stand in clear.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from lictor import forms
from lictor.canonical import Json

MAX_TEXT: Final = 65_536
"""Longest text that a policy may read, in bytes."""
ESCAPES: Final = frozenset({"__entity", "__extn", "__expr"})
"""Names that Cedar's JSON form gives a meaning of its own."""
_MAX_DECIMAL: Final = Decimal("922337203685477.5807")
_SHORT: Final = 1e11
_QUOTED: Final = re.compile(r"`.*`", re.DOTALL)
_NUMERAL: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?")


class Refused(Exception):
    """A call that cannot be put before the policies.

    Attributes:
        code: `input_invalid`, `not_canonical` or `policy_error`.
        detail: Which argument, and what is wrong; no value.
    """

    def __init__(self, code: str, detail: str, canonical: str = "") -> None:
        self.code, self.detail = code, detail
        self._canonical = canonical
        super().__init__(detail)

    def told(self, recordable: Collection[str]) -> str:
        """The detail, with the canonical form of an argument that may stand in clear.

        Args:
            recordable: Arguments that may.
        """
        argument = re.split(r"[.\[:]", self.detail, maxsplit=1)[0]
        if self._canonical and argument in recordable:
            return f"{self.detail}; write {self._canonical}"
        return self.detail


def unquoted(error: str) -> str:
    """An error of the engine, which names the policy, without the values that it quotes."""
    policy, colon, what = error.partition("`: ")
    return policy + colon + _QUOTED.sub("…", what) if colon else _QUOTED.sub("…", error)


def refuse_escapes(value: Json | Mapping[str, Json], at: str = "") -> None:
    """Refuses names that Cedar would turn into entities, extension values or expressions."""
    if isinstance(value, Mapping):
        if not ESCAPES.isdisjoint(value):
            name = min(ESCAPES.intersection(value))
            raise Refused("input_invalid", f"{at or 'arguments'}: the name {name} is reserved")
        for name, item in value.items():
            if type(item) is dict or type(item) is list:
                refuse_escapes(item, f"{at}.{name}" if at else name)
    elif type(value) is list:
        for item in value:
            if type(item) is dict or type(item) is list:
                refuse_escapes(item, f"{at}[]")


def decimal_text(value: object, at: str) -> str:
    """A number as Cedar's `decimal`, in one spelling with four places."""
    if type(value) is float and -_SHORT < value < _SHORT:
        # Up to 15 digits, a float equals a decimal text exactly when it reads back the same.
        spelled = f"{value:.4f}"
        if value != 0 and float(spelled) == value:
            return spelled
    number = _number(value, at)
    if not number.is_finite() or abs(number) > _MAX_DECIMAL:
        raise Refused("input_invalid", f"{at}: is too large for a policy to compare")
    spelled = f"{number:.4f}"
    if Decimal(spelled) != number:
        raise Refused("input_invalid", f"{at}: has more than four decimal places")
    return "0.0000" if number == 0 else spelled


def _number(value: object, at: str) -> Decimal:
    kind = type(value)
    if kind is int or kind is Decimal:
        return Decimal(value)  # type: ignore[arg-type]
    if kind is float:
        return Decimal(repr(value))
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        return Decimal(value)
    raise Refused("input_invalid", f"{at}: is not a number")


def checked_text(value: Any, at: str) -> str:
    """Text that a policy may read.

    Raises:
        Refused: It is too long or not in Unicode form NFC.
    """
    text: str = value
    if len(text) > MAX_TEXT or (not text.isascii() and len(text.encode()) > MAX_TEXT):
        raise Refused("input_invalid", f"{at}: is longer than {MAX_TEXT} bytes")
    if not unicodedata.is_normalized("NFC", text):
        raise Refused("not_canonical", f"{at}: is not in Unicode form NFC")
    return text


def formed(form: str, text: str, at: str) -> Any:
    """Text in its parts.

    Raises:
        Refused: It is not in its canonical form.
    """
    try:
        return forms.FORMS[form](text)
    except forms.NotCanonical as error:
        canonical = forms.visible(error.canonical or "")
        raise Refused("not_canonical", f"{at}: {error.problem}", canonical) from None
