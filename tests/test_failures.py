"""Failures of emergency lighting: decoded once, told when they appear and when they clear."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.failures import Failures
from netatmo_ingestd.models import Event, FailureCode, Record
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.records import from_json, to_json
from netatmo_ingestd.sources.emergency import FAILURE_FLAG, SITE_CONTROLLERS
from netatmo_ingestd.sources.legrand import poll_of, site

BEGIN = datetime(2026, 3, 14, 12, tzinfo=UTC)
EVERY = timedelta(minutes=15)
MEANINGS = {8: ["BLOCK.FAULTY_BATTERY"], 72: ["BLOCK.FAULTY_BATTERY", "BLOCK.DLD"], 1: ["BLOCK.OK"]}


@dataclass
class Building:
    """A site whose answers a test makes by hand; what was spooled, and the table `last`."""

    failures: Failures = field(default_factory=Failures)
    name: str = "building"
    time: datetime = BEGIN
    down: bool = False
    records: list[Record] = field(default_factory=list)
    last: dict[Any, Any] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    there: set[str] = field(default_factory=lambda: {"site-1", "c-1", "c-2"})
    failing: dict[str, Any] = field(default_factory=dict)
    odd: Any = None
    asked: int = 0

    @property
    def intake(self) -> Any:
        return SimpleNamespace(
            wants=lambda entity: entity.entity_id not in self.left_out,
            entities=lambda _: dict.fromkeys(self.there),
        )

    @property
    def clock(self) -> Any:
        return SimpleNamespace(now=lambda: self.time)

    def set_aside(self, poll: Poll, reason: str) -> None:
        self.failing[poll.key] = self.time + timedelta(days=1), reason

    def is_refused(self, poll: Poll, now: datetime) -> bool:
        return poll.key in self.failing and now < self.failing[poll.key][0]

    def troubled(self) -> set[str]:
        return set(self.failing)

    def forget(self, key: str) -> None:
        self.failing.pop(key, None)

    async def ask(self, poll: Poll, _every: timedelta, through: Any) -> Sequence[Poll] | None:
        """As AccountPolls.ask: nothing is kept of what could not be put on the spool."""
        self.asked += 1
        if poll.endpoint is FAILURE_FLAG:
            meanings = MEANINGS[int(poll.params["flag"])]
            body: Any = [{"flag": "0x0", "failureType": each} for each in meanings]
            body = body if self.odd is None else self.odd
        else:
            body = self.body
        reply = Reply(body, self.time, self.time, b"")
        try:
            parsed = poll.endpoint.parse(reply, poll)
        except PayloadError:
            parsed = Parsed()
        parsed = await through(reply, parsed)
        if self.down:
            return None
        self.records += parsed.records
        # As the table `last` gives it back.
        self.last |= {key: from_json(to_json(row)) for key, row in parsed.last.items()}
        return list(parsed.wants)

    def poll(self, *flags: int, controller: str = "c-1") -> list[Poll]:
        """The next poll, in which a controller has these failures; the calls that should follow."""
        self.time += EVERY
        self.body = [{"id": controller, "reference": "062520", "failures": list(flags)}]
        asked = poll_of(SITE_CONTROLLERS, self.name, site(self.name, "site-1"))
        return self.serve(asked)

    def serve(self, poll: Poll) -> list[Poll]:
        account: Any = self
        found = asyncio.run(self.failures.ask(account, poll, EVERY))
        return list(found or ())

    def restart(self) -> None:
        self.failures = Failures()
        self.failures.load({key: row for key, row in self.last.items() if row is not None})

    def events(self) -> list[tuple[str, str | None, float]]:
        """(type, meaning, minutes since the begin) of each, in order of their ids."""
        found = {each.event_id: each for each in self.records if isinstance(each, Event)}
        return sorted(
            (each.type, each.meaning, (each.time - BEGIN) / timedelta(minutes=1))
            for each in found.values()
        )

    def codes(self) -> list[str]:
        return [
            f"{each.reference}|{each.flag}"
            for each in self.records
            if isinstance(each, FailureCode)
        ]


def test_a_failure_comes_and_goes() -> None:
    """One call decodes it; one event when it was seen first, one when it was seen no more."""
    building = Building()
    assert building.poll() == []
    (want,) = building.poll(8)
    assert want.params == {"reference": "062520", "flag": "8"}
    assert building.events() == []

    assert building.serve(want) == []
    assert building.poll(8) == []
    assert building.poll() == []

    assert building.events() == [
        ("failure_appeared", "BLOCK.FAULTY_BATTERY", 30),
        ("failure_cleared", "BLOCK.FAULTY_BATTERY", 60),
    ]
    assert building.codes() == ["062520|8"]
    assert building.last["failures", "c-1"] is None


def test_each_code_is_decoded_once() -> None:
    """The same flag again, at another controller, after a restart: no call, new events."""
    building = Building()
    building.serve(*building.poll(8))
    building.poll()
    building.restart()

    assert building.poll(8) == []
    assert building.poll(8, controller="c-2") == []

    assert [each[0] for each in building.events()] == [*["failure_appeared"] * 3, "failure_cleared"]
    assert building.codes() == ["062520|8"]


def test_what_clears_before_it_is_decoded_is_told() -> None:
    """The portal was away meanwhile: both events come with the answer, at their own times."""
    building = Building()
    (want,) = building.poll(72)
    building.poll()
    building.poll(72)
    building.restart()

    building.serve(want)

    assert [(kind, at) for kind, meaning, at in building.events() if meaning == "BLOCK.DLD"] == [
        ("failure_appeared", 15),
        ("failure_appeared", 45),
        ("failure_cleared", 30),
    ]
    assert len(building.events()) == 6


def test_ok_is_no_failure() -> None:
    """A flag that says that all is well is decoded, kept, and told as nothing."""
    building = Building()
    building.serve(*building.poll(1))
    building.poll()

    assert building.codes() == ["062520|1"]
    assert building.events() == []


def test_what_was_not_spooled_is_asked_again() -> None:
    """With a full spool nothing is remembered: neither the code nor that a failure was told."""
    building = Building()
    (want,) = building.poll(8)
    building.down = True
    building.serve(want)
    building.poll()
    building.down = False

    assert [each.params for each in building.poll(8)] == [want.params]  # half an hour later
    building.serve(want)
    assert building.events() == [("failure_appeared", "BLOCK.FAULTY_BATTERY", 15)]


def test_a_replaced_store_gets_everything_again() -> None:
    """Codes, and the events of what is wrong just now, without a call; under the same ids."""
    building = Building()
    building.serve(*building.poll(8))
    before = building.events()
    building.records.clear()
    building.last.clear()  # as the spool does

    building.failures.forget()

    assert building.poll(8) == []
    assert building.codes() == ["062520|8"]
    assert building.events() == before
    building.poll(8)
    assert building.codes() == ["062520|8"]
    building.restart()
    assert building.poll(8) == []
    assert building.events() == before


def test_what_is_left_out_has_no_events() -> None:
    """A controller that the owner leaves out is not looked at."""
    building = Building(left_out={"c-1"})

    assert building.poll(8) == []
    assert building.events() == []


@pytest.mark.parametrize("odd", [{}, [], 7, [{"flag": "0x8"}], "BLOCK.OK"])
def test_an_answer_that_says_nothing_is_not_asked_for_again_and_again(odd: Any) -> None:
    """One call, then it is set aside for a day; no trouble any more when the failure is gone."""
    building = Building(odd=odd)
    (want,) = building.poll(8)

    assert building.serve(want) == []
    assert list(building.failing) == ["failure_flag|062520|8"]
    assert building.asked == 2
    assert building.codes() == []

    building.odd = None
    assert [len(building.poll(8)) for _ in range(95)] == [0] * 95
    (want,) = building.poll(8)
    building.serve(want)
    assert building.events() == [("failure_appeared", "BLOCK.FAULTY_BATTERY", 15)]
    building.poll()
    assert building.failing == {}


def test_what_cannot_be_decoded_for_a_week_is_told_without_its_meaning() -> None:
    """Nothing waits for ever: neither a failure that is there, nor one that is gone."""
    building = Building(odd=[])
    building.poll(8, 72)
    building.poll(8)
    building.time += timedelta(days=7)
    building.poll(8)

    assert [(kind, what) for kind, what, _ in building.events()] == [
        ("failure_appeared", "UNKNOWN"), ("failure_appeared", "UNKNOWN"),
        ("failure_cleared", "UNKNOWN"),
    ]  # fmt: skip
    building.poll()
    assert building.last["failures", "c-1"] is None
    assert len(building.events()) == 4


def test_a_controller_that_is_gone_has_no_failures() -> None:
    """Once it is sure that it is not there any more, what was wrong with it is cleared."""
    building = Building()
    building.serve(*building.poll(8))
    building.poll(controller="c-2")
    assert len(building.events()) == 1

    building.there.discard("c-1")
    building.poll(controller="c-2")

    assert building.events()[-1] == ("failure_cleared", "BLOCK.FAULTY_BATTERY", 45)
    assert building.last["failures", "c-1"] is None


def test_what_fails_in_passing_is_asked_ever_less_often() -> None:
    """Of 96 polls of a day a few ask for the flag, then one a day."""
    building = Building()

    assert sum(len(building.poll(8)) for _ in range(96)) == 6
    assert sum(len(building.poll(8)) for _ in range(96)) == 1


def test_what_the_owner_leaves_out_later_is_not_cleared() -> None:
    """It is listed still, with its flag: nothing is told of it any more, and nothing wrong."""
    building = Building()
    building.serve(*building.poll(8))
    building.left_out.add("c-1")
    building.there.discard("c-1")

    building.poll(8)

    assert [each[0] for each in building.events()] == ["failure_appeared"]


def test_another_account_decodes_what_one_cannot() -> None:
    """Both see a failure; the one whose call is refused leaves it to the other."""
    one = Building()
    (want,) = one.poll(8)
    other = replace(one, name="other", records=[], failing={})
    one.set_aside(want, "no scope")

    assert other.poll(8) == []
    one.time = other.time
    assert one.poll(8) == []
    (want,) = other.poll(8)
    other.serve(want)
    other.poll(8)
    assert other.events() == [("failure_appeared", "BLOCK.FAULTY_BATTERY", 15)]
