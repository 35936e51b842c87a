"""Events of a home on the spool, with their pictures: what a page becomes, and what interrupts it.

The cloud is a list of events; spool, intake, ledger and account are real. A crash is an append that
never returns: everything but the spool's file and the store is forgotten then.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.account import AccountPolls, Room
from netatmo_ingestd.changes import Known
from netatmo_ingestd.errors import ApiUnavailable, SpoolError
from netatmo_ingestd.events import OLDER, PAGES, SCALE, EventWalker
from netatmo_ingestd.events.gallery import SHOWN, Gallery
from netatmo_ingestd.events.pictures import Image, NoImage, Pictures
from netatmo_ingestd.events.walks import EVOLVES, FIRST, Reach, has_holes
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.logs import EVENTS
from netatmo_ingestd.memory import Memory
from netatmo_ingestd.models import Batch, Coverage, Entity, Event, Fact, Picture
from netatmo_ingestd.polls import PictureWant, Reply
from netatmo_ingestd.settings import AccountSettings, HistorySettings
from netatmo_ingestd.sources import for_products
from netatmo_ingestd.spool import BALLAST_BYTES, Spool
from netatmo_ingestd.upserts import operations
from tests.clocks import HandClock
from tests.stores import until
from tests.wire import Documents

START = datetime(2026, 3, 14, 12, tzinfo=UTC)
EVERY = timedelta(minutes=10)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOME, CAMERA, ANA = "home-1", "70:ee:50:01:04:01", "ana-1"


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Log:
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def _take(self, event: str, **fields: Any) -> None:
        assert event in EVENTS
        self.events.append((event, fields))

    info = warning = error = _take

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.events)


@dataclass
class Cloud:
    """Client and pictures at once: `getevents` from a list, and images that addresses name.

    lasts    seconds for which an address is good
    swapped  places of the list, newest first, that are shown in each other's
    broken   what a picture gives instead, by slot path; "" for all
    takes    seconds of the clock for each picture
    """

    clock: HandClock
    size: int = 5
    events: list[dict[str, Any]] = field(default_factory=list)
    lasts: float = 600.0
    broken: dict[str, NoImage] = field(default_factory=dict)
    takes: float = 0.0
    down: bool = False
    swapped: tuple[tuple[int, int], ...] = ()
    body: Any = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def happens(self, ago: timedelta = timedelta(0), **more: Any) -> str:
        """An event with two pictures, one of them in a sub-event."""
        name = f"event-{len(self.events)}"
        event = {
            "id": name,
            "type": "outdoor",
            "time": int((self.clock.now() - ago).timestamp()),
            "module_id": CAMERA,
            "video_status": "available",
            "snapshot": {"name": f"{name}-a"},
            "subevents": [{"id": "s", "type": "human", "vignette": {"name": f"{name}-b"}}],
        }
        self.events.append(event | more)
        return name

    async def call(self, endpoint: str, params: Mapping[str, str], **how: Any) -> Reply:
        assert endpoint == "getevents"
        assert params["home_id"] == HOME
        self.asked.append((params.get("event_id", ""), how["purpose"]))
        if self.down:
            raise ApiUnavailable("down", endpoint=endpoint)
        now = self.clock.now()
        if self.body is not None:
            return Reply(self.body, now, now, json.dumps(self.body).encode())
        line = sorted(self.events, key=lambda each: each["time"], reverse=True)
        for first, second in self.swapped:
            line[first], line[second] = line[second], line[first]
        names = [each["id"] for each in line]
        begin = names.index(params["event_id"]) + 1 if "event_id" in params else 0
        page = json.loads(json.dumps(line[begin : begin + self.size]))
        until = self.clock.time() + self.lasts
        for each in page:
            for shown in (each, *each.get("subevents", ())):
                for slot in ("snapshot", "vignette"):
                    if "name" in (shown.get(slot) or {}):
                        path = shown[slot].pop("name")
                        shown[slot]["url"] = f"https://host/{path}?until={until}&sig=Canary"
        body = {"home": {"id": HOME, "events": page}}
        return Reply(body, now, now, json.dumps(body).encode())

    async def fetch(self, address: str) -> Image | NoImage:
        name = address.removeprefix("https://host/").partition("?")[0]
        await asyncio.sleep(0)
        self.clock.advance(self.takes)
        self.fetched.append(name)
        if no_image := self.broken.get(name) or self.broken.get(""):
            return no_image
        if self.clock.time() > float(address.partition("until=")[2].partition("&")[0]):
            return NoImage("HTTP 403", final=True, expired=True)
        return Image(name.encode(), "image/jpeg")


def sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Disk(Spool):
    """A spool that may end the process, or have no room for a picture.

    crashes_in  appends until one never returns; `half`: after it is on disk
    """

    crashes_in: int | None = None
    half: bool = False
    full = False

    async def append(self, batch: Batch, last: Any) -> None:
        if self.full and any(isinstance(each, Picture) for each in batch.records):
            raise SpoolError("full", full=True)
        if self.crashes_in is not None:
            self.crashes_in -= 1
            if self.crashes_in < -1 or (self.crashes_in == -1 and not self.half):
                raise Crash
        await super().append(batch, last)
        if self.crashes_in == -1:
            raise Crash


@dataclass
class House:
    """The daemon around events; `start` is a start of it."""

    folder: Path
    clock: HandClock
    cloud: Cloud
    log: Log = field(default_factory=Log)
    documents: Documents = field(default_factory=Documents)
    facts: list[Fact] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    pictures: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: Any = "all"

    async def start(self, *, loaded: bool = True) -> None:
        with (self.folder / "spool.ballast").open("ab") as file:
            file.truncate(BALLAST_BYTES)  # taken for a real one
        self.spool = Disk(self.folder, 64 << 20)
        await self.spool.open()
        await self.drain()
        self.ledger = Ledger()
        if loaded:
            self.ledger.load([])
            self.ledger.note(self.facts)
        self.room = Room(self.spool, self.clock, self.log)
        self.memory = Memory()
        self.account = self._account("home")
        gallery = Gallery(
            pictures=cast("Pictures", self.cloud),
            spool=self.spool,
            room=self.room,
            kept=90 * DAY,
            clock=self.clock,
            log=self.log,
        )
        self.walker = EventWalker(
            accounts={"home": self.account},
            ledger=self.ledger,
            gallery=gallery if self.pictures else None,
            settings=HistorySettings(since=self.since),
            clock=self.clock,
        )
        self.walker.load(await self.spool.last())
        self.cloud.asked, self.cloud.fetched = [], []

    def _account(self, name: str) -> AccountPolls:
        self._describe(name)
        return AccountPolls(
            name=name,
            sources=for_products(("security",)),
            client=cast("Any", self.cloud),
            budget=cast("Any", None),
            intake=Intake(
                settings=AccountSettings(
                    name=name, products=("security",), include=self.include, exclude=self.exclude
                ),
                spool=self.spool,
                memory=self.memory,
                ledger=self.ledger,
                log=self.log,
            ),
            room=self.room,
            clock=self.clock,
            log=self.log,
        )

    def _describe(self, name: str) -> None:
        entities = (
            Entity(name, "home", HOME, HOME, "", "home", {"name": "Home"}),
            Entity(name, "module", CAMERA, HOME, "", "NOC", {"name": "Yard"}),
            Entity(name, "person", ANA, HOME, "", "person", {"name": "Ana"}),
        )
        now = self.clock.now()
        self.memory.learn("homesdata", {e.entity_id: Known(e, now, now) for e in entities})

    @property
    def home(self) -> Entity:
        return self.account.intake.entities("home")[HOME]

    async def poll(self) -> None:
        self.cloud.asked = []
        await self.walker.poll(self.account, self.home, EVERY)

    async def fill(self) -> None:
        """One walk of those that go back to the beginning."""
        walk = self.walker._new_walk(self.home, Reach.WHOLE)
        await self.walker._walk(self.account, self.home, walk, OLDER, DAY, None)

    async def stop(self) -> None:
        await self.spool.close()

    async def crash(self) -> None:
        self.spool.crashes_in = None
        await self.spool.close()

    async def drain(self) -> None:
        """What a writer does: into the documents, facts at the end."""
        waiting = await self.spool.oldest_batches(9999, 1 << 40)
        for each in waiting:
            found, facts, _ = records.unpack(each.body)
            for document in found:
                assert "Canary" not in records.to_json(document)
                self.order.append(document["record"])
                for op in operations(document):
                    self.documents.update(op.collection, op.where, op.change, upsert=op.upsert)
            self.order += ["Fact"] * len(facts)
            self.facts += facts
        await self.spool.settle([each.id for each in waiting], {})

    async def stored(self) -> Documents:
        await self.drain()
        return self.documents

    async def event(self, name: str) -> dict[str, Any]:
        return (await self.stored())["events"][name]

    @property
    def covered(self) -> Any:
        found = self.ledger.find(HOME, SCALE)
        return found.covered if found else ()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = HandClock(START.timestamp(), auto=True)
    found = House(tmp_path, clock, Cloud(clock))
    await found.start()
    yield found
    await found.stop()


async def test_a_page(house: House) -> None:
    """Pictures first, each a batch of its own; then the events that name them, with the fact."""
    name = house.cloud.happens(2 * HOUR, type="person", person_id=ANA, is_arrival=True)

    await house.poll()

    event = await house.event(name)
    assert house.order == [
        "Picture",
        "Picture",
        "Event",
        "Answer",
        "Fact",
        "Answer",
        "Fact",
    ]
    assert event["person_name"] == "Ana"
    assert event["detected"] == ["person"]
    assert sorted(event["pictures"]) == sorted([sha256(f"{name}-a"), sha256(f"{name}-b")])
    assert event["pictures_lost"] == []
    picture = house.documents["pictures"][sha256(f"{name}-b")]
    assert picture.pop("first_stored")
    assert picture == {
        "_id": sha256(f"{name}-b"),
        "account": "home",
        "bytes": f"{name}-b".encode(),
        "size": len(f"{name}-b"),
        "content_type": "image/jpeg",
        "time": START - 2 * HOUR,
        "event_id": name,
        "module_id": CAMERA,
        "home_id": HOME,
    }
    assert house.covered == ((FIRST, START - EVOLVES),)


async def test_neighbours_that_are_swapped_over_two_pages(house: House) -> None:
    """The newer of two events comes on the page below the older one: its pictures are fetched."""
    for minutes in (0, 60, 120, 180, 240, 241, 300, 360):
        house.cloud.happens(3 * DAY + timedelta(minutes=minutes))
    house.cloud.swapped = ((4, 5),)

    await house.poll()

    for number in range(8):
        event = await house.event(f"event-{number}")
        assert len(event["pictures"]) == 2, event
    assert house.cloud.asked[:2] == [("", "live"), ("event-5", "live")]


async def test_a_second_poll_fetches_nothing_again(house: House) -> None:
    """The first page is read again, its pictures are not; also after a start."""
    for hours in (30, 20, 2):
        house.cloud.happens(hours * HOUR)
    await house.poll()
    house.cloud.happens(timedelta(minutes=5))
    house.cloud.fetched = []

    await house.poll()
    assert sorted(house.cloud.fetched) == ["event-3-a", "event-3-b"]
    assert house.cloud.asked == [("", "live")]
    await house.stop()
    await house.start()
    await house.poll()
    assert house.cloud.fetched == []


async def test_without_pictures_nothing_is_fetched(house: House) -> None:
    """Off by default: events are stored, pictures neither fetched nor called lost."""
    house.pictures = False
    await house.stop()
    await house.start()
    name = house.cloud.happens(2 * HOUR)

    await house.poll()

    event = await house.event(name)
    assert house.cloud.fetched == []
    assert (event["pictures"], "pictures_lost" in event) == ([], False)
    assert "pictures" not in house.documents


async def test_a_page_without_new_pictures_is_told_once(house: House) -> None:
    """Two slots with the same bytes are one picture."""
    image = {"name": "same"}
    name = house.cloud.happens(2 * HOUR, snapshot=image, vignette=image)

    await house.poll()

    event = await house.event(name)
    assert sorted(event["pictures"]) == sorted([sha256("same"), sha256(f"{name}-b")])
    assert house.order.count("Picture") == 2


async def test_a_lost_picture_is_recorded(house: House) -> None:
    """With slot and reason; it is not asked for again, and holds nothing up."""
    house.cloud.broken["event-0-a"] = NoImage("HTTP 404", final=True, expired=True)
    name = house.cloud.happens(2 * HOUR, vignette={"filename": "vod/1.jpg"})

    await house.poll()
    house.cloud.fetched = []
    await house.poll()

    event = await house.event(name)
    assert event["pictures"] == [sha256("event-0-b")]
    assert event["pictures_lost"] == [
        {"slot": "snapshot", "reason": "HTTP 404"},
        {"slot": "vignette", "reason": "only on the camera"},
    ]
    assert house.cloud.fetched == []
    assert not has_holes(house.covered, FIRST)


async def test_a_picture_that_comes_later(house: House) -> None:
    """What only the camera had, and is given an address later, is no longer lost."""
    name = house.cloud.happens(timedelta(minutes=20), snapshot={"filename": "vod/1.jpg"})
    await house.poll()
    assert (await house.event(name))["pictures_lost"] == [
        {"slot": "snapshot", "reason": "only on the camera"}
    ]
    house.cloud.events[0]["snapshot"] = {"name": "event-0-a"}
    house.clock.advance(600)

    await house.poll()

    event = await house.event(name)
    assert (len(event["pictures"]), event["pictures_lost"]) == (2, [])


async def test_an_old_address_is_no_loss(house: House) -> None:
    """Refused more than a minute after the answer, a picture is tried with a fresh address."""
    house.cloud.lasts, house.cloud.takes = 30, 70
    name = house.cloud.happens(2 * HOUR)
    await house.poll()
    assert (
        "pictures_lost" not in (await house.event(name))
        or not (await house.event(name))["pictures_lost"]
    )
    assert house.covered == ((FIRST, START - 2 * HOUR),)

    house.cloud.takes = 1
    await house.poll()

    assert len((await house.event(name))["pictures"]) == 2
    assert not has_holes(house.covered, FIRST)


async def test_a_host_that_is_away(house: House) -> None:
    """Events are stored without their fact; their pictures come once the host is back."""
    house.cloud.broken[""] = NoImage("no connection", final=False)
    for hours in range(10):
        house.cloud.happens(hours * HOUR + 2 * HOUR)
    await house.poll()
    assert len((await house.stored())["events"]) == 10
    assert len(house.cloud.fetched) == 10  # of the first page; a host that hangs takes its time
    assert house.covered == ((FIRST, START - 11 * HOUR),)
    assert house.log.count("picture.failing") == 1

    house.cloud.broken.clear()
    house.clock.advance(600)
    await house.poll()

    assert len((await house.stored())["pictures"]) == 20
    assert not has_holes(house.covered, FIRST)
    assert house.log.count("picture.recovered") == 1
    assert all(len(each["pictures"]) == 2 for each in house.documents["events"].values())


async def test_a_picture_is_not_waited_for_without_end(house: House) -> None:
    """After a day it is lost, and the walk goes on; old events wait so long."""
    house.cloud.broken["event-0-a"] = NoImage("HTTP 500", final=False)
    name = house.cloud.happens(50 * HOUR)
    for hours in range(6):
        house.cloud.happens(hours * HOUR + 51 * HOUR)
    for _ in range(23):
        await house.poll()
        assert house.cloud.asked == [("", "live")]
        house.clock.advance(3600)
    assert "event-6" not in (await house.stored())["events"]

    house.clock.advance(3600)
    await house.poll()

    assert (await house.event(name))["pictures_lost"] == [
        {"slot": "snapshot", "reason": "for a day: HTTP 500"}
    ]
    assert "event-6" in house.documents["events"]
    assert not has_holes(house.covered, FIRST)


async def test_an_address_that_does_not_come_again(house: House) -> None:
    """A picture that could not be fetched, and is offered no more, is lost and holds nothing up."""
    house.cloud.broken["event-0-a"] = NoImage("HTTP 500", final=False)
    name = house.cloud.happens(2 * HOUR)
    await house.poll()
    house.cloud.events[0]["snapshot"] = None
    house.clock.advance(60)

    await house.poll()

    event = await house.event(name)
    assert event["pictures_lost"] == [{"slot": "snapshot", "reason": "no address any more"}]
    assert event["pictures"] == [sha256("event-0-b")]
    assert not has_holes(house.covered, FIRST)
    assert house.covered == ((FIRST, house.clock.now() - EVOLVES),)


async def test_a_picture_larger_than_the_spool(house: House) -> None:
    """What could never be put on the spool is lost; it would hold up everything else."""
    house.spool.max_bytes = 16
    name = house.cloud.happens(2 * HOUR)
    house.cloud.fetch = lambda _: asyncio.sleep(0, Image(b"x" * 9, "image/png"))  # type: ignore[method-assign,assignment]
    page = await house.walker.gallery.hang(  # type: ignore[union-attr]
        [Event("home", name, HOME, CAMERA, "outdoor", START, START)],
        [PictureWant(name, "snapshot", "https://host/a")],
        (),
        START,
    )

    assert page.whole
    assert page.shown[name].lost == {"snapshot": "too large for the spool"}


async def test_what_the_owner_deleted_stays_deleted(house: House) -> None:
    """Events of a forgotten time are neither asked for nor stored, on whichever page they are."""
    for hours in range(40):
        house.cloud.happens(hours * HOUR)
    span = (FIRST, START - 20 * HOUR - timedelta(minutes=30))
    forgotten = Coverage(
        HOME, SCALE, (), (), None, "home", START, reread=(START, START), forgotten=(span,)
    )
    house.ledger.absorb([forgotten])

    await house.poll()

    assert len(house.cloud.asked) == 5
    assert len((await house.stored())["events"]) == 21
    assert house.walker._to_fill(house.account) is None


async def test_a_nearly_full_spool_waits(house: House) -> None:
    """At 80 % nothing is asked, nothing lost; it goes on when there is room."""
    house.cloud.happens(2 * HOUR)
    waiting = house.spool.bytes
    house.spool.bytes = int(0.8 * house.spool.max_bytes) + 1

    await house.poll()
    assert house.cloud.asked == []
    house.spool.bytes = waiting
    await house.poll()

    assert len((await house.stored())["pictures"]) == 2


async def test_a_spool_that_fills_on_the_way(house: House) -> None:
    """A picture that finds no room is not lost: the page comes without its fact, and again."""
    name = house.cloud.happens(2 * HOUR)
    house.spool.full = True
    await house.poll()
    house.spool.full = False
    assert house.covered == ((FIRST, START - 2 * HOUR),)

    await house.poll()

    event = await house.event(name)
    assert (len(event["pictures"]), event["pictures_lost"]) == (2, [])


async def test_a_damaged_spool_ends_it(house: House) -> None:
    """Damage is for the next start."""

    async def damaged(batch: Batch, last: Any) -> None:
        raise SpoolError("damaged", full=False)

    house.cloud.happens(2 * HOUR)
    house.spool.append = damaged  # type: ignore[method-assign]

    with pytest.raises(SpoolError):
        await house.poll()


async def test_a_call_that_fails_is_asked_again(house: House) -> None:
    """Nothing is covered by a failure."""
    house.cloud.happens(2 * HOUR)
    house.cloud.down = True
    await house.poll()
    assert (house.covered, len(house.cloud.asked)) == ((), 1)

    house.cloud.down = False
    await house.poll()

    assert not has_holes(house.covered, FIRST)


@pytest.mark.parametrize("body", ["no", {"home": {"events": [5, {"id": 7}]}}, {"home": 3}])
async def test_an_answer_that_cannot_be_read_is_no_beginning(house: House, body: Any) -> None:
    """It is kept as it came, and covers nothing."""
    house.cloud.body = body

    await house.poll()

    assert house.covered == ()
    assert house.ledger.find(HOME, SCALE) is None
    assert "answers" in (await house.stored())


async def test_a_home_without_events(house: House) -> None:
    """One call each time; the first event is found, and what is before it read once."""
    for _ in range(3):
        await house.poll()
        house.clock.advance(600)
        assert len(house.cloud.asked) == 1
    name = house.cloud.happens(timedelta(0))
    house.clock.advance(7200)
    await house.poll()

    assert name in (await house.stored())["events"]
    await house.poll()
    assert len(house.cloud.asked) == 1
    coverage = house.ledger.find(HOME, SCALE)
    assert coverage is not None
    assert coverage.filled[0][0] == START + timedelta(minutes=30)


async def test_an_event_evolves(house: House) -> None:
    """What is recorded is read again until it is there, and a picture of the past stays named."""
    name = house.cloud.happens(timedelta(minutes=1), video_status="recording")
    await house.poll()
    before = dict(await house.event(name))
    for _ in range(12):
        house.clock.advance(600)
        house.cloud.happens()
    house.cloud.events[0] |= {"video_status": "available", "snapshot": None}

    await house.poll()

    event = await house.event(name)
    assert before["video_status"] == "recording"
    assert event["video_status"] == "available"
    assert set(event["pictures"]) == {sha256(f"{name}-a"), sha256(f"{name}-b")}


async def test_what_is_left_out(house: House) -> None:
    """Events of a module or person that the owner leaves out are not stored, and cost no other."""
    house.exclude = ("Yard",)
    await house.stop()
    await house.start()
    house.cloud.happens(2 * HOUR)
    own = house.cloud.happens(3 * HOUR, module_id=HOME, type="person_away")

    await house.walker.poll(
        house.account, Entity("home", "home", HOME, HOME, "", "home", {}), EVERY
    )

    assert set((await house.stored())["events"]) == {own}
    assert not has_holes(house.covered, FIRST)


async def test_a_poll_ends_after_some_pages(house: House) -> None:
    """A long way back is not walked by a poll, but by the walk that fills."""
    for hours in range(PAGES * 5 + 20):
        house.cloud.happens(hours * HOUR)
    await house.poll()
    assert len(house.cloud.asked) == PAGES
    assert has_holes(house.covered, FIRST)
    house.cloud.asked = []
    stop = asyncio.Event()

    task = asyncio.create_task(house.walker.run(stop))
    await until(lambda: not has_holes(house.covered, FIRST))
    stop.set()
    await task

    assert {purpose for _, purpose in house.cloud.asked} == {"history"}
    assert len(house.cloud.asked) <= 7
    assert len((await house.stored())["events"]) == len(house.cloud.events)
    assert len(house.documents["pictures"]) == 2 * len(house.cloud.events)


async def test_before_the_ledger_is_read(house: House) -> None:
    """Only what is fresh is read, and nothing filled."""
    await house.stop()
    await house.start(loaded=False)
    for hours in range(40):
        house.cloud.happens(hours * HOUR)

    await house.poll()

    assert len(house.cloud.asked) == 1
    assert house.walker._to_fill(house.account) is None


@pytest.mark.parametrize(
    ("since", "asked", "stored"), [("never", 1, 5), (date(2026, 3, 13), 8, 40), ("all", 9, 40)]
)
async def test_how_far_back(house: House, since: Any, asked: int, stored: int) -> None:
    """As [history] since says: "never" reads what is new from now on."""
    house.since = since
    await house.stop()
    await house.start()
    for hours in range(40):
        house.cloud.happens(hours * HOUR)

    await house.poll()

    assert len(house.cloud.asked) == asked
    assert len((await house.stored())["events"]) == stored
    assert house.walker._to_fill(house.account) is None
    await house.poll()
    assert len(house.cloud.asked) == 1


async def test_one_account_reads_a_home(house: House) -> None:
    """Another one that sees the home leaves it to the first, which stays its owner."""
    house.cloud.happens(2 * HOUR)
    await house.poll()
    home, other = house.home, house._account("guest")
    house.cloud.asked = []

    await house.walker.poll(other, home, EVERY)

    assert house.cloud.asked == []


async def test_pictures_older_than_are_kept_are_not_fetched(house: House) -> None:
    """They would be deleted at once; their events are stored, and none of them is called lost."""
    house.cloud.happens(91 * DAY)
    house.cloud.happens(89 * DAY)

    await house.poll()

    assert sorted(house.cloud.fetched) == ["event-1-a", "event-1-b"]
    assert "pictures_lost" not in (await house.event("event-0"))


async def test_a_replaced_store_is_filled_again(house: House) -> None:
    """What was remembered of a store that is gone keeps no picture from the new one."""
    house.cloud.happens(2 * HOUR)
    await house.poll()
    await house.stored()
    house.documents.clear()
    house.facts.clear()
    await house.spool.forget_last({})
    house.walker.forget()
    house.ledger.forget()
    house.ledger.load([])

    await house.poll()

    assert len((await house.stored())["pictures"]) == 2
    assert len(house.documents["events"]["event-0"]["pictures"]) == 2


async def test_what_is_remembered_is_bounded(house: House) -> None:
    """After a month of events only those of the last days stand in `last`."""
    for _ in range(30 * 8):
        house.cloud.happens()
        house.clock.advance(3 * 3600)
        await house.poll()
        await house.drain()

    rows = Counter(endpoint for endpoint, _ in await house.spool.last())
    assert rows[SHOWN] <= 8 * 3
    assert rows[SCALE] <= 1
    assert len(house.documents["pictures"]) == 2 * 30 * 8
    assert all(len(each["pictures"]) == 2 for each in house.documents["events"].values())


@pytest.mark.parametrize("half", [False, True])
async def test_killed_at_each_append_nothing_is_missing(house: House, half: bool) -> None:
    """Three days are caught up; killed before or after each write, all events and pictures come.

    What was fetched and is on the spool is not fetched again.
    """
    for place in range(36):
        house.cloud.happens(72 * HOUR - place * 2 * HOUR)
    again: set[str] = set()
    crashes = 0
    for appends in range(1, 200):
        house.spool.crashes_in, house.spool.half = appends % 7, half
        there = set((await house.stored()).get("pictures", ()))
        try:
            await house.poll()
            await house.fill()
        except Crash:
            crashes += 1
            again |= there & {sha256(each) for each in house.cloud.fetched}
            await house.crash()
            await house.start()
            house.clock.advance(30)
            continue
        break
    house.spool.crashes_in = None

    stored = await house.stored()
    assert crashes > 20
    assert set(stored["events"]) == {each["id"] for each in house.cloud.events}
    assert set(stored["pictures"]) == {
        sha256(f"{each['id']}-{slot}") for each in house.cloud.events for slot in "ab"
    }
    for name, event in stored["events"].items():
        assert set(event["pictures"]) == {sha256(f"{name}-a"), sha256(f"{name}-b")}
        assert event["pictures_lost"] == []
    assert house.ledger.find(HOME, SCALE) is not None
    assert not has_holes(house.covered, FIRST)
    assert again == set()
