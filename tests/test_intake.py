"""From a good answer to the spool: what lands there, what is remembered, and what is not."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError, SpoolError
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.memory import Memory
from netatmo_ingestd.models import Entity, Fact, Priority
from netatmo_ingestd.polls import Parsed, Poll, Reply
from netatmo_ingestd.records import Document
from netatmo_ingestd.settings import AccountSettings
from netatmo_ingestd.sources.days import days_poll
from netatmo_ingestd.sources.measure import PAGE_ROWS, ROWS, rows_poll
from netatmo_ingestd.sources.weather import WEATHER
from netatmo_ingestd.spool import BALLAST_BYTES, Spool

CASES = Path(__file__).parent / "data" / "weather"
SERVER = datetime(2025, 11, 1, 12, 26, 40, tzinfo=UTC)
EVERY = timedelta(minutes=10)
DAY = timedelta(days=1)
STATION = "70:ee:50:2a:10:01"
OUTDOOR = "02:00:00:2a:10:02"
MODULES = {STATION, OUTDOOR, "06:00:00:2a:10:03", "05:00:00:2a:10:04", "03:00:00:2a:10:05"}
HOME = "64bb0c1a9e3d7f0011aa22b1"
STATIONS = WEATHER.endpoints[0]


@dataclass
class Log:
    """Takes events as structlog does."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def _take(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    info = warning = error = _take

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


@dataclass
class Desk:
    """An intake with everything around it."""

    spool: Spool
    memory: Memory = field(default_factory=Memory)
    ledger: Ledger = field(default_factory=Ledger)
    log: Log = field(default_factory=Log)

    def intake(self, name: str = "home", **settings: Any) -> Intake:
        return Intake(
            settings=AccountSettings(name=name, **settings),
            spool=self.spool,
            memory=self.memory,
            ledger=self.ledger,
            log=self.log,
        )

    async def taken(self) -> list[tuple[list[Document], list[Fact]]]:
        """Each waiting batch, unpacked; the spool is empty afterwards."""
        waiting = await self.spool.oldest_batches(999, 1 << 40)
        await self.spool.settle([each.id for each in waiting], {})
        return [records.unpack(each.body)[:2] for each in waiting]

    async def last_taken(self) -> list[Document]:
        return (await self.taken())[-1][0]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    spool = await opened(tmp_path)
    yield Desk(spool)
    await spool.close()


async def opened(folder: Path) -> Spool:
    with (folder / "spool.ballast").open("ab") as file:
        file.truncate(BALLAST_BYTES)  # taken for a real one
    spool = Spool(folder, 64 << 20)
    await spool.open()
    return spool


def stations(case: str = "full_station", at: datetime = SERVER) -> Reply:
    """The answer of a case; its envelope as raw text."""
    raw = (CASES / case / "response.json").read_bytes()
    return Reply(json.loads(raw)["body"], at, at, raw)


def poll(account: str = "home") -> Poll:
    return Poll(STATIONS, account)


def rows(first: int, count: int, step: int = 300) -> Reply:
    body = {str(first + step * place): [20.5, 50] for place in range(count)}
    return Reply(body, SERVER, SERVER, json.dumps({"body": body}).encode())


def rows_asked(first: int) -> Poll:
    target = Entity("home", "module", OUTDOOR, HOME, STATION, "NAModule1", {})
    return rows_poll(
        "home", target, ("Temperature", "Humidity"), datetime.fromtimestamp(first, UTC)
    )


def kinds(documents: list[Document]) -> dict[str, int]:
    return dict(Counter(document["record"] for document in documents))


def answer_in(documents: list[Document]) -> tuple[Document, str]:
    """The stored raw answer, and its text."""
    (answer,) = [each for each in documents if each["record"] == "Answer"]
    return answer, zlib.decompress(answer["body"]).decode()


def whats(documents: list[Document]) -> list[tuple[str, str]]:
    return [(each["what"], each["entity_id"]) for each in documents if each["record"] == "Change"]


# --- a whole take ---------------------------------------------------------------------------------


async def test_a_full_take(desk: Desk) -> None:
    """One answer is one batch: descriptions, intervals, changes, rows and the raw answer."""
    intake = desk.intake()

    wants = await intake.take(stations(), poll(), EVERY)

    ((documents, facts),) = await desk.taken()
    assert (list(wants), facts) == ([], [])
    assert kinds(documents) == {
        "Entity": 6,
        "State": 5,
        "Change": 6,
        "Measurement": 5,
        "Answer": 1,
    }
    assert whats(documents) == [("added", each) for each in (HOME, *_in_order(documents))]
    measured = {each["module_id"] for each in documents if each["record"] == "Measurement"}
    assert measured == set(intake.modules("home")) == MODULES
    assert len(desk.log.of("module.added")) == 6
    answer, text = answer_in(documents)
    assert (answer["keep"], answer["problems"], answer["key"]) == (False, [], "home")
    assert json.loads(text)["devices"] == stations().body["devices"]


def _in_order(documents: list[Document]) -> list[str]:
    return [
        each["entity_id"]
        for each in documents
        if each["record"] == "Entity" and each["kind"] == "module"
    ]


async def test_the_same_answer_again(desk: Desk) -> None:
    """An equal answer is spooled whole again but changes nothing and logs nothing."""
    intake = desk.intake()
    await intake.take(stations(), poll(), EVERY)
    await desk.taken()
    desk.log.events.clear()

    await intake.take(stations(at=SERVER + EVERY), poll(), EVERY)

    documents = await desk.last_taken()
    assert kinds(documents) == {"Entity": 6, "State": 5, "Measurement": 5, "Answer": 1}
    assert desk.log.events == []
    assert {each["until"] for each in documents if each["record"] == "State"} == {SERVER + EVERY}


async def test_history_rows(desk: Desk) -> None:
    """A history answer is one batch with its fact; its newest row is remembered."""
    intake = desk.intake()
    first = 1_761_990_000

    wants = await intake.take(rows(first, 3), rows_asked(first), EVERY)

    ((documents, facts),) = await desk.taken()
    assert list(wants) == []
    assert kinds(documents) == {"Measurement": 3, "Answer": 1}
    assert [(fact.rows, fact.end) for fact in facts] == [(3, SERVER)]
    assert answer_in(documents)[0]["key"] == f"home|{OUTDOOR}"
    assert intake.newest(OUTDOOR) == datetime.fromtimestamp(first + 600, UTC)


async def test_a_fact_is_in_the_ledger_once_it_is_on_the_spool(desk: Desk) -> None:
    """The ledger in memory runs ahead of the store, never of the spool: nothing is asked twice."""
    first = int(SERVER.timestamp()) - 3600
    bound, desk.spool.max_bytes = desk.spool.max_bytes, 1
    with pytest.raises(SpoolError):
        await desk.intake().take(rows(first, 3), rows_asked(first), EVERY)
    assert len(desk.ledger) == 0

    desk.spool.max_bytes = bound
    await desk.intake().take(rows(first, 3), rows_asked(first), EVERY)

    found = desk.ledger.find(OUTDOOR, "max")
    assert found is not None
    assert found.newest == datetime.fromtimestamp(first + 600, UTC)
    assert found.asked == SERVER


@pytest.mark.parametrize(
    ("priority", "reread", "answers"),
    [(Priority.TRAILING, False, 1), (Priority.REREAD, True, 0), (Priority.HISTORY, False, 0)],
)
async def test_old_rows_leave_no_raw_answer(
    desk: Desk, priority: Priority, reread: bool, answers: int
) -> None:
    """What is asked of the past is kept raw only when something in it was not understood.

    A late re-read is marked: what its rows change is revised.
    """
    first = int(SERVER.timestamp()) - 3600
    asked = replace(rows_asked(first), endpoint=ROWS[priority])
    await desk.intake().take(rows(first, 3), asked, EVERY)
    odd = replace(rows(first, 3), body={str(first): ["warm", 50]})
    await desk.intake().take(odd, asked, EVERY)

    plain, kept = await desk.spool.oldest_batches(9, 1 << 20)

    documents, _, marked = records.unpack(plain.body)
    assert kinds(documents).get("Answer", 0) == answers
    assert marked is reread
    answer, _ = answer_in(records.unpack(kept.body)[0])
    assert answer["keep"]
    assert records.unpack(kept.body)[2] is reread


async def test_day_rows_move_no_newest_row(desk: Desk) -> None:
    """The begin of a day is no moment at which the module was read."""
    target = Entity("home", "module", OUTDOOR, HOME, STATION, "NAModule1", {})
    midnight = SERVER.replace(hour=0, minute=0, second=0)
    asked = days_poll("home", target, ("Temperature",), midnight - 9 * DAY)
    body = {str(int((midnight - 3 * DAY).timestamp())): [20.5]}

    await desk.intake().take(Reply(body, SERVER, SERVER, b"{}"), asked, EVERY)

    assert desk.memory.newest == {}
    assert kinds(await desk.last_taken()) == {"Summary": 1}
    assert desk.ledger.find(OUTDOOR, "1day") is not None


async def test_a_sign_of_life_is_what_a_description_tells(desk: Desk) -> None:
    """When a module was last seen, and its newest values; and when that was told."""
    intake = desk.intake()
    assert intake.heard(OUTDOOR) is None

    await intake.take(stations(), poll(), EVERY)
    first = intake.heard(OUTDOOR)
    await intake.take(stations(at=SERVER + EVERY), poll(), EVERY)
    again = intake.heard(OUTDOOR)

    assert first is not None
    assert again is not None
    assert all(first[0][:2])
    assert (again[0], first[1], again[1]) == (first[0], SERVER, SERVER + EVERY)


async def test_a_full_page_wants_the_next(desk: Desk) -> None:
    """The follow-up of a full page comes back to the caller."""
    first = 1_761_000_000

    (want,) = await desk.intake().take(rows(first, PAGE_ROWS), rows_asked(first), EVERY)

    assert want.begin == datetime.fromtimestamp(first + 300 * (PAGE_ROWS - 1) + 1, UTC)


async def test_rows_of_a_deleted_time_are_not_stored_again(desk: Desk) -> None:
    """A page that overlaps what the owner deleted brings its other rows only."""
    first = 1_761_000_000
    fact = (await _facts(desk, first))[0]
    middle = (fact.begin + timedelta(seconds=300), fact.begin + timedelta(seconds=600))
    known = desk.ledger.find(OUTDOOR, "max")
    assert known is not None
    desk.ledger.absorb([replace(known, forgotten=(middle,))])

    await desk.intake().take(rows(first, 4), rows_asked(first), EVERY)

    stored = [each["time"] for each in await desk.last_taken() if each["record"] == "Measurement"]
    assert [int(each.timestamp()) - first for each in stored] == [0, 600, 900]


async def _facts(desk: Desk, first: int) -> list[Fact]:
    await desk.intake().take(rows(first, 4), rows_asked(first), EVERY)
    return (await desk.taken())[0][1]


async def test_newest_never_goes_back(desk: Desk) -> None:
    """An older page, read later, does not move the newest row back, in memory or in `last`."""
    intake = desk.intake()
    await intake.take(rows(1_761_990_000, 3), rows_asked(1_761_990_000), EVERY)

    await intake.take(rows(1_761_000_000, 3), rows_asked(1_761_000_000), EVERY)
    await intake.take(rows(0, 0), rows_asked(1_761_995_000), EVERY)

    assert intake.newest(OUTDOOR) == datetime.fromtimestamp(1_761_990_600, UTC)
    assert (await desk.spool.last())["rows", OUTDOOR] == {"newest": intake.newest(OUTDOOR)}


async def test_memory_survives_a_restart(desk: Desk) -> None:
    """What is remembered is what `last` holds: after a restart an equal answer changes nothing."""
    await desk.intake().take(stations(), poll(), EVERY)
    await desk.intake().take(rows(1_761_990_000, 3), rows_asked(1_761_990_000), EVERY)
    again = Desk(desk.spool)

    await again.memory.load(desk.spool)

    assert again.memory.known == desk.memory.known
    assert again.memory.newest == desk.memory.newest
    await again.intake().take(stations(at=SERVER + EVERY), poll(), EVERY)
    assert whats(await again.last_taken()) == []


# --- when it goes wrong ---------------------------------------------------------------------------


async def test_a_full_spool_leaves_memory_unchanged(desk: Desk) -> None:
    """After SpoolError nothing is remembered or counted, so the same answer is news later."""
    intake = desk.intake()
    desk.spool.max_bytes = 10
    asked = rows_asked(1_761_990_000)

    with pytest.raises(SpoolError):
        await intake.take(stations("unknown_fields"), poll(), EVERY)
    with pytest.raises(SpoolError):
        await intake.take(rows(1_761_990_000, 3), asked, EVERY)

    assert (desk.memory.known, desk.memory.newest) == ({}, {})
    assert (desk.memory.drift, desk.memory.problems) == (Counter(), Counter())
    assert desk.log.events == []
    assert await desk.spool.last() == {}

    desk.spool.max_bytes = 64 << 20
    await intake.take(stations("unknown_fields"), poll(), EVERY)
    documents = await desk.last_taken()
    assert len(whats(documents)) == 3
    assert answer_in(documents)[0]["keep"]


def explode(reply: Reply, poll: Poll) -> Parsed:
    raise KeyError("surprise")


def stammer(reply: Reply, poll: Poll) -> Parsed:
    raise ValueError("a\ud800b")


def refuse(reply: Reply, poll: Poll) -> Parsed:
    raise PayloadError("no devices", endpoint="getstationsdata", path="body.devices")


@pytest.mark.parametrize(
    ("parse", "told"),
    [
        (explode, "body: KeyError: 'surprise'"),
        (stammer, "body: ValueError: a?b"),
        (refuse, "body.devices: no devices"),
    ],
)
async def test_an_exploding_parser_keeps_the_answer(desk: Desk, parse: Any, told: str) -> None:
    """A surprise in an answer costs that answer, which is kept whole with the reason."""
    asked = Poll(replace(STATIONS, parse=parse), "home")

    wants = await desk.intake().take(stations(), asked, EVERY)

    documents = await desk.last_taken()
    answer, text = answer_in(documents)
    assert (list(wants), kinds(documents)) == ([], {"Answer": 1})
    assert (answer["keep"], answer["problems"]) == (True, [told])
    assert json.loads(text)["devices"] == stations().body["devices"]
    assert [each["error"] for each in desk.log.of("parse.failed")] == [told]
    assert desk.memory.problems == {f"getstationsdata: {told}": 1}


async def test_a_surprise_makes_nothing_vanish(desk: Desk) -> None:
    """Answers that could not be read say nothing about what is gone."""
    intake = desk.intake()
    await intake.take(stations(), poll(), EVERY)

    for day in range(1, 6):
        later = stations(at=SERVER + day * DAY)
        await intake.take(later, Poll(replace(STATIONS, parse=explode), "home"), EVERY)

    assert set(intake.modules("home")) == MODULES


@pytest.mark.parametrize(
    "case", ["odd_values", "key_injection", "wrong_types", "measure_bad_stamps"]
)
async def test_odd_answers_are_kept(desk: Desk, case: str) -> None:
    """No odd answer ends as a dead letter: its text is among the answers, whole."""
    asked = rows_asked(1_761_990_000) if case.startswith("measure") else poll()

    await desk.intake().take(stations(case), asked, EVERY)

    documents = await desk.last_taken()
    answer, text = answer_in(documents)
    assert "DeadLetter" not in kinds(documents)
    assert answer["keep"]
    assert len(answer["problems"]) == min(50, sum(desk.memory.drift.values()) + problems(desk))
    if asked.target is not None:
        assert json.loads(text) == stations(case).body


def problems(desk: Desk) -> int:
    return sum(desk.memory.problems.values())


async def test_a_bottomless_answer_is_kept_as_text(desk: Desk) -> None:
    """An answer nested too deeply to be walked costs no neighbour and is kept without mail."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    reply = stations()
    reply.body["devices"][0]["deep"] = deep

    await desk.intake().take(reply, poll(), EVERY)

    documents = await desk.last_taken()
    answer, text = answer_in(documents)
    assert kinds(documents)["Measurement"] == 5
    assert answer["keep"]
    assert '"Parlour"' in text
    assert "@" not in text


# --- drift and problems ---------------------------------------------------------------------------


async def test_drift_is_told_once_and_counted(desk: Desk) -> None:
    """New fields are logged once, counted each time, and their answer is kept once."""
    intake = desk.intake()

    kept = []
    for turn in range(3):
        await intake.take(stations("unknown_fields", SERVER + turn * EVERY), poll(), EVERY)
        kept.append(answer_in(await desk.last_taken())[0]["keep"])

    assert kept == [True, False, False]
    assert desk.memory.drift == {
        f"getstationsdata: body.{path}: unknown field": 3
        for path in (
            "announcement",
            "devices[].place.street",
            "devices[].dashboard_data.Lightning",
            "devices[].wifi_band",
            "devices[].modules[].radio_band",
            "devices[].modules[].neighbours",
        )
    }
    assert len(desk.log.of("parse.drift")) == 6
    assert desk.memory.problems == {}


async def test_a_value_set_aside_is_kept_each_time(desk: Desk) -> None:
    """What is only in the raw answer keeps every such answer, and is logged once."""
    intake = desk.intake()

    kept = []
    for turn in range(2):
        await intake.take(stations("wrong_types", SERVER + turn * EVERY), poll(), EVERY)
        kept.append(answer_in(await desk.last_taken())[0]["keep"])

    assert kept == [True, True]
    assert (
        desk.memory.problems["getstationsdata: body.devices[].place: a text that cannot be used"]
        == 2
    )
    assert len(desk.log.of("parse.problem")) == len(desk.memory.problems)


async def test_bad_stamps_are_one_kind(desk: Desk) -> None:
    """A thousand rows of the far future are one line of the log, not a thousand."""
    far = rows(4_000_000_000, 1000)

    await desk.intake().take(far, rows_asked(1_761_990_000), EVERY)

    assert desk.memory.problems == {"getmeasure: body[]: no plausible time": 1000}
    assert len(desk.log.of("parse.problem")) == 1


async def test_kinds_are_bounded(desk: Desk) -> None:
    """Ever new field names fill neither memory nor log without end."""
    reply = stations()
    reply.body["devices"][0] |= {f"field {place}": place for place in range(3000)}

    await desk.intake().take(reply, poll(), EVERY)

    assert len(desk.memory.drift) == 501
    assert desk.memory.drift["more kinds"] == 2500
    assert len(desk.log.of("parse.drift")) == 500
    assert all(len(name) <= 300 for name in desk.memory.drift)


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["as usual", "elsewhere", "body is a list", "parser explodes"])
async def test_no_mail_address_in_a_stored_answer(desk: Desk, place: str) -> None:
    """Wherever an answer holds mail addresses, its stored text has none."""
    reply, asked = stations(), poll()
    assert reply.body["user"]["mail"] == "mia@example.org"
    if place == "elsewhere":
        reply.body["devices"][0]["shared_with"] = [{"who": "Mia <mia@example.org>"}]
        reply.body["mia@example.org"] = reply.body.pop("user")
    elif place == "body is a list":
        reply = replace(reply, body=[reply.body])
    elif place == "parser explodes":
        asked = Poll(replace(STATIONS, parse=explode, secrets=()), "home")

    await desk.intake().take(reply, asked, EVERY)

    _, text = answer_in(await desk.last_taken())
    assert "@" not in text
    assert "Parlour" in text


# --- selection ------------------------------------------------------------------------------------


async def test_excluded_modules_are_not_stored(desk: Desk) -> None:
    """Neither description, interval, row nor memory of what the owner excluded; the rest stays."""
    intake = desk.intake(exclude=("Orchard",))

    await intake.take(stations(), poll(), EVERY)

    documents = await desk.last_taken()
    told = {each.get("entity_id", each.get("module_id")) for each in documents}
    assert OUTDOOR not in told
    assert told >= MODULES - {OUTDOOR}
    assert set(intake.modules("home")) == MODULES - {OUTDOOR}
    assert ("getstationsdata", OUTDOOR) not in await desk.spool.last()


@pytest.mark.parametrize("exclude", ["Orchard", "Dyke cottage"])
async def test_excluded_later_is_neither_read_nor_vanished(desk: Desk, exclude: str) -> None:
    """What was stored before it was excluded is no longer asked for, and did not vanish."""
    await desk.intake().take(stations(), poll(), EVERY)
    await desk.taken()
    intake = desk.intake(exclude=(exclude,))

    for day in range(1, 5):
        await intake.take(stations(at=SERVER + day * DAY), poll(), EVERY)

    left = MODULES - {OUTDOOR} if exclude == "Orchard" else set()
    assert set(intake.modules("home")) == left
    assert [whats(documents) for documents, _ in await desk.taken()] == [[]] * 4


async def test_guests_are_left_out(desk: Desk) -> None:
    """An invited station and its home are not stored unless included; its answer is."""
    await desk.intake().take(stations("invited"), poll(), EVERY)
    assert kinds(await desk.last_taken()) == {"Answer": 1}

    await desk.intake(include=("Dyke cottage",)).take(stations("invited"), poll(), EVERY)
    assert kinds(await desk.last_taken())["Entity"] == 3


async def test_vanished_modules_are_not_asked(desk: Desk) -> None:
    """A module that is gone for days is no longer among those whose history is read."""
    intake = desk.intake()
    await intake.take(stations(), poll(), EVERY)
    await desk.taken()

    for day in range(1, 4):
        await intake.take(stations("no_modules", SERVER + day * DAY), poll(), EVERY)

    assert set(intake.modules("home")) == {STATION}
    gone = [whats(documents) for documents, _ in await desk.taken()]
    assert [len(each) for each in gone] == [0, 0, 4]


# --- accounts -------------------------------------------------------------------------------------


async def test_two_accounts_at_once_add_once(desk: Desk) -> None:
    """When two accounts see the same home at the same moment it is added once; rows are kept."""
    await asyncio.gather(
        *(desk.intake(name).take(stations(), poll(name), EVERY) for name in ("one", "two", "three"))
    )

    batches = [documents for documents, _ in await desk.taken()]
    assert [len(whats(documents)) for documents in batches] == [6, 0, 0]
    assert [kinds(documents)["Measurement"] for documents in batches] == [5, 5, 5]
    assert {each.entity.account for each in desk.memory.known["getstationsdata"].values()} == {
        "one"
    }


async def test_modules_belong_to_the_account_that_describes_them(desk: Desk) -> None:
    """Only the account that describes a module reads its history."""
    await desk.intake("one").take(stations(), poll("one"), EVERY)
    await desk.intake("two").take(stations(), poll("two"), EVERY)

    assert set(desk.intake("one").modules("one")) == MODULES
    assert desk.intake("two").modules("two") == {}


async def test_forget(desk: Desk) -> None:
    """After the store was replaced everything is news again."""
    intake = desk.intake()
    await intake.take(stations(), poll(), EVERY)
    await intake.take(rows(1_761_990_000, 3), rows_asked(1_761_990_000), EVERY)
    await desk.taken()

    intake.forget()

    assert (intake.modules("home"), intake.newest(OUTDOOR)) == ({}, None)
    await intake.take(stations(at=SERVER + EVERY), poll(), EVERY)
    assert len(whats(await desk.last_taken())) == 6
