"""Times as people write them: a date, a time, or how long ago.

Rules enforced here:

1. A time without a zone is local time; a date stands for its whole day, so that `--until` a day
   includes it.
2. What is not clearly a time is refused; nothing is guessed.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from lictor.errors import ConfigError

_AGO: Final = re.compile(r"-?(\d{1,6})\s*(s|min|m|h|d|w)(?:\s+ago)?")
_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def instant(text: str, option: str, now: float, *, end: bool = False) -> float:
    """Epoch seconds of a time.

    Args:
        text: `2026-10-01`, `2026-10-01T14:00`, `2026-10-01T14:00Z`, `-2h`, `2h ago`, `today`,
            `yesterday`, `now`.
        option: What it was given as, for the error.
        now: Epoch seconds.
        end: A day stands for its end, not its beginning.

    Raises:
        ConfigError: It is no time.
    """
    words = text.strip().lower()
    ago = _AGO.fullmatch(words)
    if words == "now":
        return now
    if ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    today = datetime.fromtimestamp(now).date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        day = days.get(words) or _date(text.strip())
        if day is not None:
            whole = day + timedelta(days=1) if end else day
            return datetime.combine(whole, time()).astimezone().timestamp()
        at = _time(text.strip())
        return (at if at.tzinfo else at.astimezone()).timestamp()
    except (ValueError, OverflowError, OSError):
        mend = f"{option} 2026-10-01, {option} 2026-10-01T14:00, or {option} 2h"
        raise ConfigError(option, f"{text!r} is not a time", mend) from None


def _time(text: str) -> datetime:
    if ":" not in text:  # a compact date, which would be taken for its midnight
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _date(text: str) -> date | None:
    return date.fromisoformat(text) if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text) else None


def shown(micros: object) -> str:
    """Microseconds since the epoch as a time in UTC; what is none as it stands."""
    try:
        at = datetime.fromtimestamp(int(str(micros)) / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return str(micros)
    return f"{at:%Y-%m-%d %H:%M:%S}"
