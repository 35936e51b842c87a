"""From spool rows to bulks: what was spooled becomes upserts, cut to what the server takes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import bson

from netatmo_ingestd import records
from netatmo_ingestd.models import Fact
from netatmo_ingestd.upserts import Operation, dead_letter, operations

BULK_BYTES = 1 << 20
REGROW_S = 3600.0
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    bson.errors.BSONError,
)


def unpacked(batches: Iterable[tuple[bytes, bool]]) -> tuple[list[Operation], list[Fact]]:
    """The operations and facts of some batches, each given as its body and whether it is damaged.

    What cannot be read, by damage or because another version wrote it, becomes a dead letter: as
    an exception it would come back at each start.
    """
    wanted: list[Operation] = []
    facts: list[Fact] = []
    for body, damaged in batches:
        try:
            if damaged:
                raise ValueError("damaged on the spool (checksum)")
            documents, established, reread = records.unpack(body)
        except _UNREADABLE as error:
            wanted += dead_letter(f"{type(error).__name__}: {error}", body.hex())
            continue
        facts += established
        for document in documents:
            try:
                made = operations(document)
                wanted += [replace(each, reread=True) for each in made] if reread else made
            except _UNREADABLE as error:
                wanted += dead_letter(f"{type(error).__name__}: {error}", document)
    return wanted, facts


@dataclass
class BulkSize:
    """How many operations a bulk holds: halved after two timeouts, doubled once an hour."""

    most: int
    regrow_s: float = REGROW_S
    now: int = 0
    timeouts: int = 0
    unanswered: int = 0
    changed: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.now = self.most

    def timed_out(self, size: int) -> bool:
        """A bulk of `size` was not answered; True when the size was halved."""
        self.timeouts += 1
        self.unanswered = size
        if self.timeouts < 2 or size == 1:
            return False
        self.now = max(1, min(self.now, size) // 2)
        self.timeouts = 0
        self.changed = time.monotonic()
        return True

    def went_well(self, size: int) -> bool:
        """A bulk of `size` was answered; True when bulks may grow again."""
        if size >= self.unanswered:
            # A smaller one proves nothing: each round begins with the same small ones.
            self.timeouts = 0
        if self.now == self.most or time.monotonic() - self.changed < self.regrow_s:
            return False
        self.now = min(self.most, self.now * 2)
        self.unanswered = self.timeouts = 0
        self.changed = time.monotonic()
        return True

    def cut(self, wanted: Sequence[Operation]) -> Iterator[list[Operation]]:
        """Bulks of at most `now` operations and 1 MiB, in order.

        Each is of one collection, and of re-reads only or of none.
        """
        groups: dict[tuple[str, bool], list[Operation]] = {}
        for each in wanted:
            groups.setdefault((each.collection, each.reread), []).append(each)
        for group in groups.values():
            bulk: list[Operation] = []
            size = 0
            for each in group:
                if bulk and (len(bulk) >= self.now or size + each.size > BULK_BYTES):
                    yield bulk
                    bulk, size = [], 0
                bulk.append(each)
                size += each.size
            yield bulk
