"""The last data calls one by one: what was asked, and which rows the answer held."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

KEPT = 20_000


class Entry(NamedTuple):
    """One call.

    at           simulated epoch of its arrival
    module       the `module_id` it named, else its `device_id`
    begin, end   `date_begin` and `date_end` as sent: an epoch, or text such as "last"
    status       0 when the connection was gone before an answer
    rows         history rows in the answer, stamped `first` to `last`
    """

    at: float
    purpose: str
    endpoint: str
    account: str
    module: str | None
    scale: str | None
    begin: int | str | None
    end: int | str | None
    status: int
    rows: int
    first: int | None
    last: int | None


class Journal:
    """The last `KEPT` calls."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._next = 0

    def add(
        self,
        *,
        at: float,
        purpose: str,
        endpoint: str,
        account: str,
        params: Sequence[tuple[str, str]],
        status: int,
        stamps: Sequence[int],
    ) -> None:
        """A call is over.

        params  its arguments as sent
        stamps  of the history rows in its answer
        """
        sent = dict(params)
        module = sent.get("module_id") or sent.get("device_id")
        scale = sent.get("scale")
        self._entries.append(
            Entry(
                at=at,
                purpose=sys.intern(purpose),
                endpoint=sys.intern(endpoint),
                account=account,
                module=module and sys.intern(module),
                scale=scale and sys.intern(scale),
                begin=_epoch(sent.get("date_begin")),
                end=_epoch(sent.get("date_end")),
                status=status,
                rows=len(stamps),
                first=stamps[0] if stamps else None,
                last=stamps[-1] if stamps else None,
            )
        )
        self._next += 1

    def since(self, index: int, purpose: str | None = None) -> list[dict[str, Any]]:
        """Entries from `index` on, oldest first, of one purpose or of all.

        Calls are counted in the order in which they ended, from 0.
        """
        gone = self._next - len(self._entries)
        first = max(gone, index)
        return [
            {"index": number, **entry._asdict()}
            for number, entry in enumerate(islice(self._entries, first - gone, None), first)
            if purpose in (None, entry.purpose)
        ]


def _epoch(text: str | None) -> int | str | None:
    """A number where one was sent."""
    return int(text) if text and text.isdecimal() else text
