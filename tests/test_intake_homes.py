"""From a good answer to the spool, where several endpoints tell of one home.

getstationsdata and homesdata list what is there; homestatus tells how it is.
"""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.intake import Intake
from netatmo_ingestd.ledger import Ledger
from netatmo_ingestd.memory import Memory
from netatmo_ingestd.models import Batch, Entity
from netatmo_ingestd.polls import Poll, Reply
from netatmo_ingestd.records import Document
from netatmo_ingestd.settings import AccountSettings
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.sources.weather import WEATHER
from netatmo_ingestd.upserts import operations
from tests.test_intake import DAY, EVERY, SERVER, Desk, Log, desk, kinds, whats
from tests.test_sources_homes import household, modules_of, odd_parts
from tests.wire import Documents

__all__ = ["desk"]  # a fixture

PRODUCTS = ("weather", "energy", "security", "control")
HOME, STATION, VALVE, RELAY, ROOM = "h1", "70:ee:50:00:00:01", "valve", "relay", "17"
EVER = timedelta(hours=3)
FIVE = timedelta(minutes=5)


@dataclass
class House:
    """What the cloud would tell of one home, by each endpoint."""

    name: str = "Barn"
    station: str = "Parlour"
    valve: str = "Radiator"
    listed: set[str] = field(default_factory=lambda: {STATION, VALVE, RELAY})
    state: dict[str, Any] = field(default_factory=dict)
    errors: list[Any] = field(default_factory=list)
    with_ids: bool = True

    def homesdata(self) -> Any:
        room = {"id": ROOM, "name": "Study", "type": "home_office", "module_ids": [VALVE]}
        modules = [
            {"id": STATION, "type": "NAMain", "name": self.station},
            {"id": RELAY, "type": "NAPlug", "name": "Relay"},
            {"id": VALVE, "type": "NRV", "name": self.valve, "room_id": ROOM, "bridge": RELAY},
        ]
        return {
            "homes": [
                {
                    "id": HOME,
                    "name": self.name,
                    "timezone": "Europe/Paris",
                    "rooms": [room],
                    "modules": [each for each in modules if each["id"] in self.listed],
                    "persons": [{"id": "ana", "pseudo": "Ana"}],
                }
            ]
        }

    def getstationsdata(self) -> Any:
        device: dict[str, Any] = {
            "_id": STATION,
            "type": "NAMain",
            "module_name": self.station,
            "home_id": HOME,
        }
        other = {"_id": "other", "type": "NAMain", "module_name": "Other", "home_id": "h2"}
        device |= {"home_name": f"{self.name} by its station", "reachable": True}
        devices = [device, other]
        return {"devices": [each for each in devices if each["_id"] in {*self.listed, "other"}]}

    def homestatus(self) -> Any:
        valve = {"id": VALVE, "type": "NRV", "reachable": True, "rf_strength": 60, "bridge": RELAY}
        room = {"id": ROOM, "reachable": True, "therm_measured_temperature": 19.5, **self.state}
        home: dict[str, Any] = {
            "rooms": [room],
            "modules": [{"id": RELAY, "type": "NAPlug", "wifi_strength": 44}, valve],
            "persons": [{"id": "ana", "out_of_sight": False}],
        }
        told = {each["id"] for each in self.errors}
        home["modules"] = [each for each in home["modules"] if each["id"] not in told]
        return {"home": {"id": HOME, **home} if self.with_ids else home, "errors": self.errors}


ENDPOINTS = {
    "getstationsdata": (WEATHER.endpoints[0], EVERY),
    "homesdata": (HOMESDATA, EVER),
    "homestatus": (HOMESTATUS, FIVE),
}


@dataclass
class Table:
    """An intake, and the answers that it took."""

    desk: Desk
    house: House
    account: str = "home"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        told = {"products": PRODUCTS, **self.options}
        self.intake = self.desk.intake(self.account, **told)

    async def take(self, *names: str, at: timedelta = timedelta(0)) -> list[Document]:
        """What each answer put on the spool, one after the other."""
        found: list[Document] = []
        for name in names:
            endpoint, every = ENDPOINTS[name]
            target = Entity(self.account, "home", HOME, HOME, "", "home", {})
            poll = Poll(endpoint, self.account, target=target if name == "homestatus" else None)
            body = getattr(self.house, name)()
            moment = SERVER + at
            await self.intake.take(Reply(body, moment, moment, b"{}"), poll, every)
            found += await self.desk.last_taken()
        return found


@pytest.fixture
def table(desk: Desk) -> Table:
    return Table(desk, House())


def of(documents: list[Document], kind: str, entity_id: str) -> list[Document]:
    names = ("entity_id", "module_id")
    return [
        each
        for each in documents
        if each["record"] == kind and entity_id in (each.get(name) for name in names)
    ]


def ids(documents: list[Document], kind: str) -> set[str]:
    return {
        each.get("entity_id") or each["module_id"] for each in documents if each["record"] == kind
    }


def stored(documents: list[Document], into: Documents | None = None) -> Documents:
    found = Documents() if into is None else into
    for document in documents:
        for each in operations(document):
            found.update(each.collection, each.where, each.change, upsert=each.upsert)
    return found


# --- one change is told once ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        ("getstationsdata", "homesdata", "homestatus"),
        ("homesdata", "homestatus", "getstationsdata"),
        ("homestatus", "homesdata", "getstationsdata"),
    ],
)
async def test_added_is_told_once(table: Table, order: tuple[str, ...]) -> None:
    """Whoever tells of it first; and live state alone adds nothing."""
    for name in order:
        documents = await table.take(name)
        if name == "homestatus":
            assert whats(documents) == []
    again = await table.take(*order, at=FIVE)

    added = [each["id"] for each in table.desk.log.of("module.added")]
    assert sorted(added) == sorted([HOME, ROOM, STATION, RELAY, VALVE, "ana", "other", "h2"])
    assert whats(again) == []


@pytest.mark.parametrize("first", ["getstationsdata", "homesdata"])
async def test_a_rename_is_told_once(table: Table, first: str) -> None:
    """A station that both endpoints describe is renamed once, whichever tells of it first."""
    second = "homesdata" if first == "getstationsdata" else "getstationsdata"
    await table.take("getstationsdata", "homesdata", "homestatus")
    table.house.station = "Salon"

    renamed = await table.take(first, at=EVERY)
    after = await table.take(second, "homestatus", first, second, at=2 * EVERY)

    (change,) = [each for each in renamed if each["record"] == "Change"]
    assert (change["what"], change["entity_id"]) == ("changed", STATION)
    assert (change["before"], change["after"]) == ({"name": "Parlour"}, {"name": "Salon"})
    assert whats(after) == []


async def test_a_new_firmware_is_told_by_live_state(table: Table) -> None:
    """What only live state knows is a change like any other; a second look is none."""
    await table.take("homesdata")
    told: list[Any] = []
    for firmware in (76, 77, 77):
        relay = {"id": RELAY, "type": "NAPlug", "firmware_revision": firmware}
        body = {"home": {"modules": [relay]}}
        table.house.homestatus = partial(dict, body)  # type: ignore[method-assign]
        documents = await table.take("homestatus", at=len(told) * FIVE)
        told.append([each["after"] for each in documents if each["record"] == "Change"])

    assert told == [[], [{"firmware": 77.0}], []]


async def days(table: Table, *names: str, count: int = 4, since: int = 1) -> list[Any]:
    return [whats(await table.take(*names, at=day * DAY)) for day in range(since, since + count)]


async def test_vanished_when_no_one_lists_it(table: Table) -> None:
    """What one endpoint lacks is there while another lists it; gone from both, it vanishes once."""
    await table.take("getstationsdata", "homesdata", "homestatus")
    everything = table.house.getstationsdata()
    table.house.listed -= {STATION}
    table.house.getstationsdata = lambda: everything  # type: ignore[method-assign]

    here = await days(table, "getstationsdata", "homesdata", "homestatus")
    assert STATION in table.intake.modules("home")
    everything["devices"].pop(0)
    gone = await days(table, "getstationsdata", "homesdata", "homestatus", since=5)

    assert here == [[]] * 4
    assert [each for day in gone for each in day] == [("vanished", STATION)]
    assert STATION not in table.intake.modules("home")


async def test_returned_once(table: Table) -> None:
    """What had vanished from both returns once, with the first that lists it again."""
    await table.take("getstationsdata", "homesdata")
    table.house.listed -= {STATION}
    await days(table, "getstationsdata", "homesdata")
    table.house.listed |= {STATION}

    back = await table.take("homesdata", at=6 * DAY)
    after = await table.take("getstationsdata", "homesdata", at=7 * DAY)

    assert whats(back) == [("returned", STATION)]
    assert whats(after) == []
    assert STATION in table.intake.modules("home")


async def test_live_state_makes_nothing_vanish(table: Table) -> None:
    """A module that homestatus leaves out for days is still there."""
    await table.take("homesdata", "homestatus")
    table.house.homestatus = lambda: {"home": {}}  # type: ignore[method-assign]
    empty = await days(table, "homestatus")
    table.house.homestatus = lambda: {  # type: ignore[method-assign]
        "home": {"modules": [{"id": RELAY, "type": "NAPlug"}]}
    }

    some = await days(table, "homestatus", since=5)

    assert empty + some == [[]] * 8
    assert {VALVE, RELAY, ROOM} <= set(table.intake.modules("home"))


async def test_what_vanished_is_not_kept_by_live_state(table: Table) -> None:
    """A module that homesdata lists no more is gone, though homestatus still tells its state."""
    await table.take("homesdata", "homestatus")
    table.house.listed -= {VALVE}

    told = await days(table, "homesdata", "homestatus")

    # The room lists it still, but no one tells its type any more.
    assert [each for day in told for each in day] == [("changed", ROOM), ("vanished", VALVE)]
    assert VALVE not in table.intake.modules("home")


# --- what of it is stored -------------------------------------------------------------------------


async def test_a_home_is_described_by_its_topology(table: Table) -> None:
    """A dashboard names the home until homesdata has told of it, then no more."""
    first = await table.take("getstationsdata")
    later = await table.take("homesdata", "getstationsdata", "homesdata", at=EVERY)

    assert [each["description"]["name"] for each in of(first, "Entity", HOME)] == [
        "Barn by its station"
    ]
    assert [each["description"]["name"] for each in of(later, "Entity", HOME)] == ["Barn", "Barn"]
    assert stored([*first, *later])["homes"][HOME]["name"] == "Barn"
    assert ids(later, "Entity") >= {"h2", "other"}


async def test_a_home_of_stations_alone_is_described_by_them(desk: Desk) -> None:
    """Without a product that asks homesdata the dashboard is all there is."""
    table = Table(desk, House(), options={"products": ("weather",)})

    documents = await table.take("getstationsdata", "getstationsdata")

    assert len(of(documents, "Entity", HOME)) == 2


@pytest.mark.parametrize(("products", "asked"), [(("energy",), [HOME]), (("control",), [])])
async def test_a_home_is_asked_for_its_account_s_products(
    desk: Desk, products: tuple[str, ...], asked: list[str]
) -> None:
    """A home with modules of other product lines alone costs no call."""
    table = Table(desk, House(), options={"products": products})

    await table.take("homesdata")

    assert list(table.intake.homes("home", HOMESTATUS)) == asked


async def test_a_set_point_without_end_ends_the_one_before(table: Table) -> None:
    """An end that is told no more is gone from the interval that follows, and from the module."""
    point = {"therm_setpoint_temperature": 21, "therm_setpoint_mode": "manual"}
    await table.take("homesdata")
    table.house.state = {**point, "therm_setpoint_end_time": int(SERVER.timestamp()) + 600}
    before = await table.take("homestatus")
    table.house.state = {**point, "therm_setpoint_mode": "schedule", "therm_setpoint_end_time": 0}
    after = await table.take("homestatus", at=FIVE)

    (was,), (is_,) = of(before, "State", ROOM), of(after, "State", ROOM)
    end = SERVER + timedelta(seconds=600)
    assert was["values"] == {
        "reachable": True,
        "setpoint_temperature": 21.0,
        "setpoint_mode": "manual",
        "setpoint_end": end,
    }
    assert is_["values"] == {
        "reachable": True,
        "setpoint_temperature": 21.0,
        "setpoint_mode": "schedule",
    }
    assert (was["time"], is_["time"]) == (SERVER, SERVER + FIVE)
    documents = stored(before)
    assert documents["modules"][ROOM]["setpoint_end"] == end
    stored(after, documents)
    assert "setpoint_end" not in documents["modules"][ROOM]
    assert documents["modules"][ROOM]["setpoint_mode"] == "schedule"


async def test_an_error_ends_with_its_cause(table: Table) -> None:
    """A module that the cloud could not reach is unreachable with a code, then as before."""
    told = await table.take("homesdata", "homestatus")
    table.house.errors = [{"code": 6, "id": VALVE}]
    failed = await table.take("homestatus", at=FIVE)
    table.house.errors = []
    well = await table.take("homestatus", at=2 * FIVE)

    states = [of(each, "State", VALVE)[0]["values"] for each in (told, failed, well)]
    assert states == [{"reachable": True}, {"reachable": False, "error": 6}, {"reachable": True}]
    assert [len(of(each, "Measurement", VALVE)) for each in (told, failed, well)] == [1, 0, 1]
    documents = stored([*told, *failed])
    assert (
        documents["modules"][VALVE] | {"error": 6, "reachable": False, "type": "NRV"}
        == (documents["modules"][VALVE])
    )
    stored(well, documents)
    assert "error" not in documents["modules"][VALVE]
    assert documents["modules"][VALVE]["reachable"] is True


async def test_an_error_of_a_station_is_for_its_dashboard_to_tell(table: Table) -> None:
    """An error has no type; of what is known to have a dashboard live state tells nothing."""
    await table.take("homesdata")
    table.house.errors = [{"code": 6, "id": STATION}, {"code": 6, "id": "camera"}]

    documents = await table.take("homestatus")

    assert ids(documents, "Entity") == {ROOM, RELAY, VALVE, "ana", "camera"}


async def test_the_intervals_of_a_state_go_on(table: Table) -> None:
    """Five minutes later the same state is the same interval, with a later end."""
    await table.take("homesdata", "homestatus")

    documents = await table.take("homestatus", at=FIVE)

    for each in (ROOM, VALVE, RELAY, "ana"):
        (state,) = of(documents, "State", each)
        assert (state["time"], state["until"]) == (SERVER, SERVER + FIVE)


# --- include, exclude -----------------------------------------------------------------------------

LIVE = {ROOM, VALVE, RELAY, "ana"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"exclude": ("Study",)}, LIVE - {ROOM, VALVE}),
        ({"exclude": (ROOM,)}, LIVE - {ROOM, VALVE}),
        ({"exclude": ("Radiator",)}, LIVE - {VALVE}),
        ({"exclude": ("Ana",)}, LIVE - {"ana"}),
        ({"exclude": ("Relay",)}, LIVE - {RELAY}),
        ({"exclude": ("Barn",)}, set()),
        ({"exclude": (HOME,)}, set()),
        ({"include": ("Study",)}, {ROOM, VALVE}),
        ({"include": ("Radiator",)}, {VALVE}),
        ({"include": ("Ana",)}, {"ana"}),
        ({"include": ("Barn",)}, LIVE),
        ({"include": (HOME,)}, LIVE),
        ({"include": ("Barn",), "exclude": ("Study", "Ana")}, {RELAY}),
        ({"include": ("Elsewhere",)}, set()),
    ],
)
@pytest.mark.parametrize("with_ids", [True, False])
async def test_selection_by_names_goes_for_what_is_told_by_id(
    desk: Desk, options: dict[str, Any], kept: set[str], with_ids: bool
) -> None:
    """Live state knows ids alone; what the owner left out by name is not stored all the same."""
    table = Table(desk, House(with_ids=with_ids), options=options)
    listed = await table.take("homesdata")

    live = await table.take("homestatus", "homestatus", at=FIVE)

    assert ids(live, "Entity") == kept
    assert ids(listed, "Entity") & LIVE == kept
    assert ids(live, "State") == kept
    assert ids(live, "Measurement") == kept - {"ana"}
    assert {entity_id for _, entity_id in await desk.spool.last()} <= {*kept, HOME, STATION}


async def test_what_is_excluded_later_is_not_stored_any_more(desk: Desk) -> None:
    """Known by then, a room and its valve are left out from the next answer on."""
    await Table(desk, House()).take("homesdata", "homestatus")
    table = Table(desk, House(), options={"exclude": ("Study",)})

    live = await table.take("homestatus", at=FIVE)

    assert ids(live, "Entity") == {RELAY, "ana"}
    assert set(table.intake.modules("home")) == {RELAY, STATION}


# --- accounts -------------------------------------------------------------------------------------


async def test_two_accounts_on_one_home_tell_each_moment_once(desk: Desk) -> None:
    """The live rows of a home are those of the account that describes it."""
    one, two = (Table(desk, House(), account=name) for name in ("one", "two"))
    told = [await each.take("homesdata", "homestatus") for each in (one, two, one, two)]

    rows = [ids(each, "Measurement") for each in told]
    assert rows == [{ROOM, VALVE, RELAY}, set(), {ROOM, VALVE, RELAY}, set()]
    assert [kinds(each).get("State", 0) > 0 for each in told] == [True, False, True, False]
    assert (set(two.intake.modules("two")), len(one.intake.modules("one"))) == (set(), 4)


async def test_another_account_takes_over_after_a_week(desk: Desk) -> None:
    """When the first is silent for a week, the second one's rows are stored."""
    one, two = (Table(desk, House(), account=name) for name in ("one", "two"))
    await one.take("homesdata", "homestatus")

    late = await two.take("homesdata", "homestatus", at=8 * DAY)

    assert ids(late, "Measurement") == {ROOM, VALVE, RELAY}


# --- garbage --------------------------------------------------------------------------------------


class Tape:
    """A spool that keeps nothing but the last batch."""

    def __init__(self) -> None:
        self.batch: Batch | None = None

    async def append(self, batch: Batch, last: Any) -> None:
        self.batch = batch


def taken(bodies: dict[str, Any]) -> list[Document]:
    """What a topology and a live state put on the spool."""
    intake = Intake(
        settings=AccountSettings(name="home", products=PRODUCTS),
        spool=(tape := Tape()),  # type: ignore[arg-type]
        memory=Memory(),
        ledger=Ledger(),
        log=Log(),
    )
    home = Entity("home", "home", HOME, HOME, "", "home", {})
    found: list[Document] = []
    for endpoint, body in ((HOMESDATA, bodies["topology"]), (HOMESTATUS, bodies["status"])):
        target = home if endpoint is HOMESTATUS else None
        reply = Reply(body, SERVER, SERVER, json.dumps(body).encode())
        asyncio.run(intake.take(reply, Poll(endpoint, "home", target=target), FIVE))
        assert tape.batch is not None
        found += records.unpack(records.pack(tape.batch)[0])[0]
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_odd_module_costs_its_siblings_nothing(data: st.DataObject) -> None:
    """Neither description, interval, change nor row of another module differs; none is given up."""
    parts = ("topology", "status")
    plain = {part: household(part) for part in parts}
    odd = copy.deepcopy(plain)
    for part in parts:
        modules = modules_of(odd[part])
        like = data.draw(st.sampled_from(modules))
        modules.append({**like, **data.draw(odd_parts(part)), "id": "odd"})

    found, expected = (taken({part: each[part]["body"] for part in parts}) for each in (odd, plain))

    def comparable(documents: list[Document]) -> list[Document]:
        lists = ("modules", "module_types")
        kept = []
        for each in documents:
            if (
                "odd" in (each.get("entity_id"), each.get("module_id"))
                or each["record"] == "Answer"
            ):
                continue
            for place in ("description", "after"):
                if each.get("kind") == "room" and place in each:
                    each[place] = {k: it for k, it in each[place].items() if k not in lists}
            kept.append(each)
        return sorted(kept, key=repr)

    assert comparable(found) == comparable(expected)
    assert "DeadLetter" not in kinds(found)
    assert all(map(operations, found))


# --- from poll to poll ----------------------------------------------------------------------------


async def test_state_goes_on_though_only_names_are_included(desk: Desk) -> None:
    """Live state tells ids alone; what is included by its name is one interval all the same."""
    house = House()
    table = Table(desk, house, options={"include": (house.valve,)})
    await table.take("homesdata", "homestatus")

    (again,) = of(await table.take("homestatus", at=FIVE), "State", VALVE)

    assert (again["time"], again["until"]) == (SERVER, SERVER + FIVE)


async def test_state_alone_changes_no_description(table: Table) -> None:
    """What is put together of several endpoints is put together again only when one changes it."""
    await table.take("homesdata", "homestatus")
    before = table.intake.entities("home")

    table.house.state = {"therm_setpoint_temperature": 22}
    await table.take("homestatus", at=FIVE)
    assert table.intake.entities("home") is before

    table.house.valve = "Renamed"
    await table.take("homesdata", at=2 * FIVE)
    assert table.intake.entities("home")[VALVE].description["name"] == "Renamed"
