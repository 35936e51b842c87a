"""What is remembered of answers: the spool's table `last`, read into memory.

It decides what changed since, and names the homes and modules to ask when MongoDB is down.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from netatmo_ingestd import changes
from netatmo_ingestd.changes import Known
from netatmo_ingestd.models import Entity
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.public import PUBLIC_DATA
from netatmo_ingestd.sources.smarther import PROGRAMS, STATUS
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.spool import Spool

ROWS = "rows"  # the pseudo endpoint under which `last` keeps each module's newest spooled row


class Memory:
    """The table `last` in memory, shared by all accounts of a daemon.

    heard     of each module what tells that it was heard again (its last sign, and its newest row
              as the dashboard shows it), and when that was told last; not on disk
    recent    of each module its rows of the last hours that were spooled, time to digest of values
    revision  counts changes of what `known` describes; not of state, which moves with each answer
    """

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Known]] = {}
        self.revision = 0
        self.newest: dict[str, datetime] = {}
        self.recent: dict[str, dict[datetime, int]] = {}
        self.heard: dict[str, tuple[Any, datetime]] = {}
        self.drift: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self.lock = asyncio.Lock()  # one answer after the other, whosever it is

    async def load(self, spool: Spool) -> None:
        self.forget()
        for (endpoint, entity_id), row in (await spool.last()).items():
            try:
                if endpoint == ROWS:
                    self.newest[entity_id] = row["newest"]
                else:
                    known = changes.from_row(entity_id, row)
                    self.known.setdefault(endpoint, {})[entity_id] = known
            except (KeyError, TypeError, AttributeError):
                continue  # written by another version: it is learned again

    def forget(self) -> None:
        self.known = {}
        self.newest = {}
        self.recent = {}
        self.revision += 1

    def learn(self, endpoint: str, update: Mapping[str, Known]) -> None:
        """Remember what an answer of `endpoint` said."""
        known = self.known.setdefault(endpoint, {})
        if any(_described(each) != _described(known.get(key)) for key, each in update.items()):
            self.revision += 1
        known.update(update)


def _described(known: Known | None) -> tuple[Entity, bool] | None:
    return (replace(known.entity, state={}), known.vanished) if known else None


_RANKS = {
    PUBLIC_DATA.name: -1,
    **{each.name: 0 for each in (HOMESTATUS, STATUS, PROGRAMS)},
    HOMESDATA.name: 1,
}


def rank(endpoint: str) -> int:
    """How much an endpoint's description counts beside that of others; the highest most."""
    return _RANKS.get(endpoint, 2)


def merged(before: Entity | None, now: Entity) -> Entity:
    """Two descriptions of one entity, without its state; what `now` says counts more."""
    if before is None:
        return replace(now, state={})
    return replace(
        now,
        state={},
        home_id=now.home_id or before.home_id,
        device_id=now.device_id or before.device_id,
        type=before.type if now.type == "unknown" else now.type,
        description={**before.description, **now.description},
        setup=now.setup or before.setup,
    )
