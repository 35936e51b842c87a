"""What every section of the settings is made of: frozen, unknown keys refused, durations read."""

from __future__ import annotations

import difflib
import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)\s*")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_MOST_S = 1e9


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def read_duration(value: object) -> object:
    """`"90s"`, `"10m"`, `"1.5h"`, `"7d"`, or a number of seconds."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError('is no duration; write e.g. "90s", "10m", "1.5h" or "7d"')
        value = float(match[1]) * _UNIT_S[match[2]]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= _MOST_S:
            raise ValueError("is out of range")
        return timedelta(seconds=value)
    return value


Duration = Annotated[timedelta, BeforeValidator(read_duration)]


def nearest(name: str, known: object) -> str:
    """`; did you mean "…"?` when one of `known` is like `name`."""
    names = list(known) if isinstance(known, (list, tuple, dict, set, frozenset)) else []
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""
