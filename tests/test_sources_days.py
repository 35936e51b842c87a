"""Day rows: which local day a stamp names, when it is over, and what a window establishes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Priority, Summary
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.sources.days import DAYS, days_poll, midnights, parse_days, zone_of
from netatmo_ingestd.sources.measure import PAGE_ROWS

SERVER = datetime(2026, 11, 14, 12, 0, 0, 700_000, UTC)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TODAY = datetime(2026, 11, 14, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
CLIMATE = ("Temperature", "Humidity")
ASKED = (
    "Temperature", "min_temp", "max_temp", "date_min_temp", "date_max_temp",
    "Humidity", "min_hum", "max_hum", "date_min_hum", "date_max_hum",
)  # fmt: skip


def module(zone: str | None = "UTC", kind: str = "NAModule1") -> Entity:
    return Entity("home", "module", "mod", "h", "dev", kind, {"timezone": zone})


def poll(zone: str | None = "UTC", types: tuple[str, ...] = CLIMATE) -> Poll:
    return days_poll("home", module(zone), types, BEGIN, walked=BEGIN)


def parse(body: Any, asked: Poll | None = None, server: datetime = SERVER) -> Parsed:
    return parse_days(Reply(body, server, server, b""), asked or poll())


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def summaries(parsed: Parsed) -> list[Summary]:
    found = [each for each in parsed.records if isinstance(each, Summary)]
    assert len(found) == len(parsed.records)
    return found


def problems(parsed: Parsed) -> list[str]:
    return [str(each) for each in parsed.problems]


def test_what_is_asked() -> None:
    """Mean, extremes and their moments of each type, from a begin on, without an end."""
    asked = days_poll("home", module(), CLIMATE, BEGIN, priority=Priority.REREAD)

    assert asked.params == {
        "device_id": "dev",
        "module_id": "mod",
        "scale": "1day",
        "type": ",".join(ASKED),
        "date_begin": str(epoch(BEGIN)),
        "limit": "1024",
        "optimize": "false",
        "real_time": "true",
    }
    assert (asked.types, asked.scale, asked.begin, asked.walked) == (ASKED, "1day", BEGIN, None)
    assert asked.endpoint is DAYS[Priority.REREAD]


@pytest.mark.parametrize(
    ("types", "asked"),
    [
        (("Rain",), ("sum_rain",)),
        (
            ("WindStrength", "WindAngle", "GustStrength", "GustAngle"),
            ("WindStrength", "GustStrength", "date_max_gust"),
        ),
    ],
)
def test_rain_is_summed_and_angles_have_no_day(
    types: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    """Rain adds up; the mean of an angle says nothing."""
    assert poll(types=types).types == asked


SHAPES: dict[str, Callable[[int, list[Any]], Any]] = {
    "object": lambda stamp, row: {str(stamp): row},
    "segments": lambda stamp, row: [{"beg_time": stamp, "step_time": 86400, "value": [row]}],
    "a segment of one": lambda stamp, row: [{"beg_time": stamp, "value": [row]}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_both_answer_shapes(shape: str) -> None:
    """A day is the same summary whichever way the cloud tells it; `date_…` become moments."""
    first = datetime(2026, 3, 14, tzinfo=UTC)
    row = [11, 3.5, 17, epoch(first + 5 * HOUR), epoch(first + 15 * HOUR), None, 30, None, None, 0]

    parsed = parse(SHAPES[shape](epoch(first), row))

    assert summaries(parsed) == [
        Summary(
            account="home",
            home_id="h",
            device_id="dev",
            module_id="mod",
            module_type="NAModule1",
            day="2026-03-14",
            time=first,
            until=first + DAY,
            values={
                "temperature": 11.0,
                "temperature_min": 3.5,
                "temperature_max": 17.0,
                "temperature_min_time": first + 5 * HOUR,
                "temperature_max_time": first + 15 * HOUR,
                "humidity_min": 30.0,
            },
            source="getmeasure",
        )
    ]
    assert type(summaries(parsed)[0].values["temperature"]) is float


@pytest.mark.parametrize(
    ("zone", "day", "begin", "hours"),
    [
        ("Europe/Paris", date(2026, 3, 29), "2026-03-28T23:00", 23),
        ("Europe/Paris", date(2026, 10, 25), "2026-10-24T22:00", 25),
        ("Europe/Paris", date(2026, 7, 1), "2026-06-30T22:00", 24),
        # By half an hour.
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00", 24.5),
        ("Australia/Lord_Howe", date(2026, 10, 4), "2026-10-03T13:30", 23.5),
        # At midnight: the day begins at one o'clock, or has two midnights.
        ("America/Havana", date(2026, 3, 8), "2026-03-08T05:00", 23),
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00", 25),
        ("No/Where", date(2026, 3, 8), "2026-03-08T00:00", 24),
        (None, date(2026, 3, 8), "2026-03-08T00:00", 24),
    ],
)
def test_a_day_is_as_long_as_the_clock_makes_it(
    zone: str | None, day: date, begin: str, hours: float
) -> None:
    """A stamp anywhere inside a local day names it; its bounds are midnights of the home's zone."""
    first = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    until = first + hours * HOUR

    assert midnights(zone_of(module(zone)), day) == (first, until)
    for inside in (first, first + 12 * HOUR, until - timedelta(seconds=1)):
        (found,) = summaries(parse({str(epoch(inside)): [1]}, poll(zone)))
        assert (found.day, found.time, found.until) == (day.isoformat(), first, until)
    (after,) = summaries(parse({str(epoch(until)): [1]}, poll(zone)))
    assert after.day == (day + DAY).isoformat()


@pytest.mark.parametrize("zone", ["Europe/Paris", "Australia/Lord_Howe", "America/Havana"])
def test_days_of_a_year_follow_each_other(zone: str) -> None:
    """No moment of a year lies in two days or in none."""
    place = zone_of(module(zone))
    days = [midnights(place, date(2026, 1, 1) + number * DAY) for number in range(366)]

    assert all(one[1] == two[0] for one, two in itertools.pairwise(days))
    assert all(begin < until for begin, until in days)


def test_a_day_that_is_not_over_is_left_out() -> None:
    """Today's row changes until midnight: it is neither stored nor part of what is established."""
    body = {str(epoch(TODAY - DAY)): [1], str(epoch(TODAY)): [2]}

    parsed = parse(body)

    (fact,) = parsed.facts
    assert [each.time for each in summaries(parsed)] == [TODAY - DAY]
    assert (fact.begin, fact.end, fact.newest) == (BEGIN, TODAY, TODAY - DAY)
    assert (fact.filled, fact.rows, fact.whole) == (((TODAY - DAY, TODAY),), 1, True)
    assert (fact.asked, fact.walked) == (SERVER.replace(microsecond=0), BEGIN)
    assert (fact.entity_id, fact.scale, fact.types) == ("mod", "1day", ASKED)


def test_whose_midnight_it_is() -> None:
    """A day ends at the midnight of the home, not at that of UTC."""
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    body = {str(epoch(noon)): [1]}

    def known(zone: str, server: datetime) -> int:
        return len(parse(body, poll(zone), server).records)

    assert known("Europe/Paris", datetime(2026, 6, 1, 21, 59, 59, tzinfo=UTC)) == 0
    assert known("Europe/Paris", datetime(2026, 6, 1, 22, tzinfo=UTC)) == 1
    assert known("America/Havana", datetime(2026, 6, 2, 3, 59, 59, tzinfo=UTC)) == 0
    assert known("America/Havana", datetime(2026, 6, 2, 4, tzinfo=UTC)) == 1


@pytest.mark.parametrize("body", [[], {}])
def test_no_day_at_all_is_an_answer(body: Any) -> None:
    """A module without rows is known to have none, up to today."""
    (fact,) = parse(body).facts

    assert (fact.begin, fact.end, fact.rows) == (BEGIN, TODAY, 0)
    assert (fact.newest, fact.filled, fact.whole) == (None, (), True)


def test_a_full_page_ends_with_its_last_day() -> None:
    """1024 days establish that many days, and history goes on from there by the ledger."""
    first = TODAY - 1100 * DAY
    asked = replace(poll(), begin=first)
    body = {str(epoch(first + number * DAY)): [1] for number in range(PAGE_ROWS)}

    parsed = parse(body, asked)

    (fact,) = parsed.facts
    end = first + PAGE_ROWS * DAY
    assert (fact.begin, fact.end, fact.newest) == (first, end, end - DAY)
    assert (fact.rows, fact.filled, fact.whole) == (PAGE_ROWS, ((first, end),), False)
    assert (len(parsed.records), parsed.wants) == (PAGE_ROWS, ())


def test_a_full_page_of_bad_stamps_establishes_nothing() -> None:
    """It is no evidence that there are no days."""
    parsed = parse({str(4_000_000_000 + number): [1] for number in range(PAGE_ROWS)})

    assert (parsed.facts, len(parsed.records)) == ((), 0)
    assert problems(parsed)[-1].startswith("body: a full page, but no day")


def test_odd_values_cost_their_neighbours_nothing() -> None:
    """What is no number, moment, list or stamp is a problem with its path; the rest is stored."""
    first = epoch(datetime(2026, 3, 14, tzinfo=UTC))
    body = {
        str(first): ["warm", 3, True, 1e12, first + 3600],
        str(first + 86400): 12,
        "today": [1, 2],
        str(first + 2 * 86400): [1, *[None] * 9, 7],
    }

    parsed = parse(body)

    one, other = summaries(parsed)
    assert one.values == {
        "temperature_min": 3.0,
        "temperature_max_time": datetime(2026, 3, 14, 1, tzinfo=UTC),
    }
    assert other.values == {"temperature": 1.0}
    assert sorted(problems(parsed)) == sorted(
        [
            "body.today: no plausible time",
            f"body.{first}.Temperature: a text that cannot be used",
            f"body.{first}.max_temp: a boolean that cannot be used",
            f"body.{first}.date_min_temp: no plausible time",
            f"body.{first + 86400}: is a number, not a list of values",
            f"body.{first + 2 * 86400}: 11 values for 10 types",
        ]
    )


@pytest.mark.parametrize("body", [None, 7, "rows"])
def test_another_body_is_refused(body: Any) -> None:
    """What is neither object nor list has no shape we know."""
    with pytest.raises(PayloadError) as caught:
        parse(body)

    assert caught.value.path == "body"
