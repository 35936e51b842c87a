"""Histories in half hours, of rooms and meters: filled by real answers until nothing is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from netatmo_ingestd.models import Coverage, Entity, Interval, Measurement, Priority, Summary
from netatmo_ingestd.plan import History, Step, steps, trailing_begin
from netatmo_ingestd.polls import Poll, Reply
from netatmo_ingestd.sources.control import METER
from netatmo_ingestd.sources.days import midnights, zone_of
from netatmo_ingestd.sources.energy import THERMOSTAT
from netatmo_ingestd.sources.measure import PAGE_ROWS, ROOM, rows_poll
from netatmo_ingestd.sources.quantities import day_types
from netatmo_ingestd.verify import Options as VerifyOptions
from netatmo_ingestd.verify import _begins, _draw, _window
from netatmo_ingestd.verify import _poll as verify_poll
from tests.truth import folded

DAY, HALF = timedelta(days=1), timedelta(minutes=30)
# In the week after the summer-time change in Paris.
NOW = datetime(2026, 4, 2, 12, 10, tzinfo=UTC)
SETUP = datetime(2026, 1, 31, 9, 17, 5, tzinfo=UTC)
ZONE = {"timezone": "Europe/Paris"}
ROOM_17 = Entity("me", "room", "17", "h", "", "room", ZONE, setup=SETUP)
NLPC = Entity("me", "module", "m", "h", "d", "NLPC", ZONE, setup=SETUP)
TYPES = {"room": ROOM.history, "module": METER}


@dataclass
class Cloud:
    """A room or meter with a row each half hour from its set-up on, but for four silent days."""

    target: Entity
    silent: Interval = (datetime(2026, 2, 9, 23, tzinfo=UTC), datetime(2026, 2, 13, 23, tzinfo=UTC))
    coverage: dict[str, Coverage] = field(default_factory=dict)
    rows: dict[datetime, Any] = field(default_factory=dict)
    days: dict[str, Any] = field(default_factory=dict)
    calls: list[Poll] = field(default_factory=list)

    @property
    def begins(self) -> list[datetime]:
        first = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
        every = (first + place * HALF for place in range(int((NOW - first) / HALF)))
        return [each for each in every if not self.silent[0] <= each < self.silent[1]]

    @property
    def history(self) -> History:
        types, known = TYPES[self.target.kind], self.coverage.get
        return History("me", self.target, types, "30min", known("30min"), known("1day"), "all")

    def ask(self, poll: Poll, now: datetime = NOW) -> None:
        """One call; what it says is stored and noted."""
        assert poll.begin is not None
        self.calls.append(poll)
        if poll.scale == "1day":
            zone = zone_of(self.target)
            days = sorted({each.astimezone(zone).date() for each in self.begins})
            stamps = [midnights(zone, each)[0] for each in days]
        else:
            stamps = [each for each in self.begins if each + HALF <= now]
        page = [each for each in stamps if each >= poll.begin][:PAGE_ROWS]
        body = {str(int(each.timestamp())): [None, 3] for each in page}
        parsed = poll.endpoint.parse(Reply(body, now, now, b""), poll)
        for record in parsed.records:
            if isinstance(record, Measurement):
                self.rows[record.time] = record.values
            else:
                assert isinstance(record, Summary)
                self.days[record.day] = record.until - record.time
        for fact in parsed.facts:
            self.coverage[fact.scale] = folded([fact], self.coverage.get(fact.scale))
        for want in parsed.wants:
            self.ask(want, now)

    def fill(self, now: datetime = NOW) -> None:
        """A first trailing read, then whatever is due, the most urgent first."""
        begin = trailing_begin(now, None, first=True, scale="30min")
        types = TYPES[self.target.kind]
        self.ask(rows_poll("me", self.target, types, begin, scale="30min"), now)
        while due := list(steps(self.history, now)):
            self.ask(min(due, key=urgency).poll, now)
            assert len(self.calls) < 20


def urgency(step: Step) -> tuple[int, int]:
    return step.poll.endpoint.priority, step.rank


@pytest.mark.parametrize("target", [ROOM_17, NLPC], ids=["room", "meter"])
def test_a_history_in_half_hours_is_filled(target: Entity) -> None:
    """Every half hour and day of its life is had, each page on one grid, and then all is done."""
    cloud = Cloud(target)

    cloud.fill()

    assert sorted(cloud.rows) == cloud.begins
    assert cloud.days.pop("2026-03-29") == timedelta(hours=23)
    assert set(cloud.days.values()) == {DAY}
    assert len(cloud.days) == (date(2026, 4, 1) - date(2026, 1, 31)).days - 4
    assert (cloud.history.missing(), cloud.history.share()) == ((), 1.0)
    method = "getroommeasure" if target.kind == "room" else "getmeasure"
    assert {each.endpoint.name for each in cloud.calls} == {method}
    fine = [each for each in cloud.calls if each.scale == "30min"]
    assert all(each.begin and each.begin.timestamp() % 1800 == 0 for each in fine)
    # 3.5 days, then a page each 21 days of 57 with rows.
    assert len(fine) == 1 + 3


def test_rows_and_requests_are_counted_in_half_hours() -> None:
    """A page is 21 days; a day without a row counts none."""
    cloud = Cloud(NLPC)
    begin = trailing_begin(NOW, None, first=True, scale="30min")
    cloud.ask(rows_poll("me", NLPC, METER, begin, scale="30min"))
    cloud.ask(next(each.poll for each in steps(cloud.history, NOW) if each.poll.scale == "1day"))

    first_day = datetime(2026, 1, 30, 23, tzinfo=UTC)
    assert cloud.history.rows() == (begin - first_day - 4 * DAY) // HALF
    assert cloud.history.requests() == 3


@pytest.mark.parametrize(
    ("types", "scale", "step"),
    [
        (THERMOSTAT, "max", 10),
        (("Temperature",), "max", 5),
        (METER, "30min", 30),
        (ROOM.history, "30min", 30),
    ],
)
def test_how_far_rows_lie_apart(types: tuple[str, ...], scale: str, step: int) -> None:
    """Of stations five minutes, of thermostats ten, of buckets their width."""
    history = History("me", NLPC, types, scale, None, None, "all")

    assert history.step == timedelta(minutes=step)


def test_late_rereads_go_as_deep_as_of_any_row() -> None:
    """A day later the last two days are read again, a week later fourteen, on the same grid."""
    cloud = Cloud(NLPC, silent=(NOW, NOW))
    cloud.fill()
    cloud.coverage = {
        scale: replace(each, newest=NOW + 30 * DAY) for scale, each in cloud.coverage.items()
    }

    for days, depth in ((1, 2), (7, 14)):
        due = [
            each.poll
            for each in steps(cloud.history, NOW + days * DAY)
            if each.poll.endpoint.priority == Priority.REREAD and each.poll.scale == "30min"
        ]
        assert due[0].begin == (NOW - depth * DAY).replace(minute=0)


# --- verify ---------------------------------------------------------------------------------------


def known(scale: str, target: Entity, length: timedelta, types: tuple[str, ...]) -> Coverage:
    begin = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    span = ((begin, begin + length),)
    return Coverage(target.entity_id, scale, types, span, None, "me", NOW, filled=span)


@pytest.mark.parametrize("target", [ROOM_17, NLPC], ids=["room", "meter"])
def test_verify_asks_a_page_of_half_hours(target: Entity) -> None:
    """Windows of 1023 half hours on the grid; and days by the types that are stored."""
    method = "getroommeasure" if target.kind == "room" else "getmeasure"
    fine = known("30min", target, 60 * DAY, TYPES[target.kind])
    coarse = known("1day", target, 60 * DAY, tuple(day_types(TYPES[target.kind])))
    begins = list(_begins(fine.filled[0], _window(fine)))

    polls = [verify_poll(target, fine, each) for each in begins]
    day_poll = verify_poll(target, coarse, NOW)

    assert _window(fine) == (PAGE_ROWS - 1) * HALF
    assert [each.begin for each in polls] == begins
    assert len(begins) == 3
    assert {each.endpoint.name for each in (*polls, day_poll)} == {method}
    assert (day_poll.scale, day_poll.types) == ("1day", coarse.types)


def test_verify_leaves_out_what_has_no_rows() -> None:
    """Of a ledger of another kind, as of events, no window is drawn."""
    fine = known("30min", NLPC, 60 * DAY, METER)
    other = replace(fine, scale="events")

    drawn = _draw([fine, other], {"m": NLPC}, VerifyOptions(windows=99))

    assert [each.scale for each, _ in drawn] == ["30min"] * 3
