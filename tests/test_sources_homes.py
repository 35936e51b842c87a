"""`homesdata` and `homestatus` by cases: one folder under data/<product>, one case.

topology.json  a whole envelope of homesdata
status.json    a whole envelope of homestatus; either of the two may be missing
expected.json  for each of them all that becomes of it: `entities` (without what is empty), `rows`,
               `problems`, `drift`, and of a status `asked`, the home; or `raises` with the path
               of a PayloadError

The cases type_<TYPE> show one module type each, at home and alive.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Entity, Measurement
from netatmo_ingestd.polls import Parsed, Poll
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources import MODULE_TYPES, fields, homestatus, topology
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.quantities import UNITS
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.upserts import operations
from tests.test_sources_weather import _entity, _exact, _garbage, _keys, _row, reply_of

DATA = Path(__file__).parent / "data"
CASES = sorted(
    {path.parent for part in ("topology", "status") for path in DATA.glob(f"*/*/{part}.json")}
)
PARTS = [
    (case, part)
    for case in CASES
    for part in ("topology", "status")
    if (case / f"{part}.json").exists()
]
IDS = [f"{case.parent.name}-{case.name}-{part}" for case, part in PARTS]


def poll_of(part: str, asked: str | None) -> Poll:
    if part == "topology":
        return Poll(HOMESDATA, "home")
    assert asked
    home = Entity("home", "home", asked, asked, "", "home", {})
    return Poll(HOMESTATUS, "home", {"home_id": asked}, target=home)


def read(case: Path, part: str) -> tuple[dict[str, Any], dict[str, Any], Poll]:
    """(envelope, what is expected of it, the poll that got it)."""
    envelope, expected = (
        json.loads((case / f"{it}.json").read_text()) for it in (part, "expected")
    )
    return envelope, expected[part], poll_of(part, expected[part].pop("asked", None))


def view(parsed: Parsed) -> dict[str, Any]:
    """Everything in `parsed` as JSON."""
    entities = [each for each in parsed.records if isinstance(each, Entity)]
    rows = [each for each in parsed.records if isinstance(each, Measurement)]
    assert len(entities) + len(rows) == len(parsed.records)
    assert {each.account for each in entities} <= {"home"}
    assert (parsed.wants, parsed.facts, parsed.pictures, parsed.last) == ((), (), (), {})
    assert len({each.entity_id for each in entities}) == len(entities)
    told = {each.entity_id: {"kind": each.kind, **_entity(each)} for each in entities}
    bare = ("read_only", "setup", "description", "condition", "state", "latest", "other")
    return {
        "entities": {
            entity_id: {name: it for name, it in each.items() if it or name not in bare}
            for entity_id, each in told.items()
        },
        "rows": [
            {name: it for name, it in _row(each).items() if it or name != "other"} for each in rows
        ],
        "problems": sorted(str(each) for each in parsed.problems if not each.drift),
        "drift": sorted(str(each) for each in parsed.problems if each.drift),
    }


@pytest.mark.parametrize(("case", "part"), PARTS, ids=IDS)
def test_case(case: Path, part: str) -> None:
    """The answer of a case becomes what its expected.json says, number types included."""
    envelope, expected, poll = read(case, part)

    if "raises" in expected:
        with pytest.raises(PayloadError) as caught:
            poll.endpoint.parse(reply_of(envelope), poll)
        assert caught.value.path == expected["raises"]
        return
    told = view(poll.endpoint.parse(reply_of(envelope), poll))

    if part == "topology":
        assert told.pop("rows") == []
    assert told == expected
    # 21 and 21.0 are equal to Python, not to MongoDB.
    assert _exact(told) == _exact(expected)


@pytest.mark.parametrize(("case", "part"), PARTS, ids=IDS)
def test_case_is_storable(case: Path, part: str) -> None:
    """Everything that comes out of a case becomes upserts, under names of ours alone."""
    envelope, expected, poll = read(case, part)
    if "raises" in expected:
        return

    parsed = poll.endpoint.parse(reply_of(envelope), poll)
    documents, *_ = records.unpack(records.pack(Batch("home", "", parsed.records))[0])

    assert [each["record"] for each in documents] == [
        type(each).__name__ for each in parsed.records
    ]
    assert all(operations(document) for document in documents)
    assert set().union(*(_keys(each) for each in documents), set()) <= OUR_NAMES


def our_names(*tables: Any) -> Iterator[str]:
    for table in tables:
        yield from (each if isinstance(each, str) else each[0] for each in table.values())


_RECORD = """
    record account kind entity_id home_id device_id type description condition state latest setup
    read_only other module_id module_type scale time values source
"""
_TOLD = """
    name home_name room_name timezone longitude latitude rooms modules module_types schedules
    offsets temperature capabilities alarm_config error home battery percent level_mv
    last_ftp last_seen out_of_sight
"""
OUR_NAMES = {
    *_RECORD.split(),
    *_TOLD.split(),
    *UNITS,
    *our_names(topology._HOME, topology._ROOM, topology._MODULE, topology._NAMES),
    *topology._MODES,
    *(f"{each}_schedule" for each in (*topology._SCHEDULE_KINDS, "other")),
    *our_names(fields.ROOM_NUMBERS, fields.VELUX_NUMBERS, fields.MODULE_NUMBERS),
    *our_names(fields.ROOM_STATE, fields.VELUX_STATE, fields.MODULE_STATE),
    *our_names(fields.ROOM_TIMES, fields.MODULE_TIMES, fields.MODULE_SEEN),
    *our_names(fields.MODULE_TOLD, fields.MODULE_DESCRIBED),
}


# --- one case for each type -----------------------------------------------------------------------


NETATMO_TYPES = {name for name, each in MODULE_TYPES.items() if each.product in NETATMO.scopes}


@pytest.mark.parametrize("name", sorted(NETATMO_TYPES))
def test_every_type_has_a_case(name: str) -> None:
    """Each module type has a folder of its product, and the case is about that type."""
    case = DATA / MODULE_TYPES[name].product / f"type_{name}"
    (home,) = json.loads((case / "topology.json").read_text())["body"]["homes"]
    live = json.loads((case / "status.json").read_text())["body"]["home"]

    for modules in (home["modules"], live["modules"]):
        assert name in [each["type"] for each in modules]
        assert {each["bridge"] for each in modules if "bridge" in each} <= {
            each["id"] for each in modules
        }
    assert home["id"] == live["id"]


def test_every_case_is_of_a_type_or_a_home() -> None:
    """No folder is left over from a type that there is not."""
    named = {case.name.removeprefix("type_") for case in CASES if case.name.startswith("type_")}

    assert named == NETATMO_TYPES


# --- garbage --------------------------------------------------------------------------------------

TYPES = ("NATherm1", "NAC", "NACamera", "NACamDoorTag", "NLY", "NLPO", "NXO", "NSD")


def household(part: str) -> dict[str, Any]:
    """One home with what the cases of some types show, and a person."""
    found: dict[str, Any] = json.loads(household_text(part))
    return found


@cache
def household_text(part: str) -> str:
    homes = []
    for name in TYPES:
        case = DATA / MODULE_TYPES[name].product / f"type_{name}" / f"{part}.json"
        body = json.loads(case.read_text())["body"]
        homes.append(body["home"] if part == "status" else body["homes"][0])
    modules = {each["id"]: each for home in homes for each in home["modules"]}
    home = {
        **homes[0],
        "modules": list(modules.values()),
        "rooms": [*homes[0]["rooms"], {"id": "empty"}],
        "persons": [{"id": "p", "out_of_sight": False, "pseudo": "Ana"}],
    }
    body = {"home": home} if part == "status" else {"homes": [home]}
    return json.dumps({"status": "ok", "time_server": 1_760_000_000, "body": body})


def keys_of(part: str) -> list[str]:
    names: list[dict[str, Any]] = [
        each
        for envelope in (household(part),)
        for home in (envelope["body"].get("home") or envelope["body"]["homes"][0],)
        for kind in ("modules", "rooms", "persons")
        for each in home[kind]
    ]
    tables = (
        (topology._MODULE, topology._ROOM, dict.fromkeys(topology._SKIPPED))
        if part == "topology"
        else (fields.MODULE_STATE, fields.MODULE_TIMES, fields.MODULE_SEEN, fields.ROOM_STATE)
    )
    extra = ("capabilities", "alarm_config", "module_offset", "last_ftp_event", "algo_status")
    return sorted({*extra, *(name for each in (*names, *tables) for name in each)} - {"id"})


@cache
def odd_parts(part: str) -> st.SearchStrategy[dict[str, Any]]:
    ids = st.sampled_from([each["id"] for each in modules_of(household(part))])
    named = st.sampled_from(keys_of(part)) | st.text(max_size=8)
    return st.dictionaries(named, _garbage | ids, max_size=12)


def modules_of(envelope: dict[str, Any]) -> list[dict[str, Any]]:
    body = envelope["body"]
    found: list[dict[str, Any]] = (body.get("home") or body["homes"][0])["modules"]
    return found


def parsed(part: str, envelope: dict[str, Any]) -> Parsed:
    poll = poll_of(part, "65800c1a7b2f4e0012ab34c1")
    return poll.endpoint.parse(reply_of(envelope), poll)


def siblings(found: Parsed) -> list[Any]:
    """All records but the odd one's; a room and a home may list that one."""
    lists = ("modules", "module_types", "rooms", "schedules")
    kept: list[Any] = []
    for each in found.records:
        if isinstance(each, Measurement) and each.module_id != "odd":
            kept.append(each)
        if isinstance(each, Entity) and each.entity_id != "odd":
            about = {name: it for name, it in each.description.items() if name not in lists}
            kept.append(replace(each, description=about))
    return sorted(kept, key=repr)


def is_stored(found: Parsed) -> bool:
    """Every record becomes upserts; none is given up."""
    documents, *_ = records.unpack(records.pack(Batch("home", "", found.records))[0])
    names = [type(each).__name__ for each in found.records]
    return [each["record"] for each in documents] == names and all(map(operations, documents))


@pytest.mark.parametrize("part", ["topology", "status"])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_odd_part_costs_its_siblings_nothing(part: str, data: st.DataObject) -> None:
    """Whatever stands in one module, room or person, all others are stored as without it."""
    kind = data.draw(st.sampled_from(["modules", "modules", "rooms", "persons"]))
    plain, odd = household(part), household(part)
    inside = odd["body"].get("home") or odd["body"]["homes"][0]
    like = data.draw(st.sampled_from(inside[kind]))
    bad = {**like, **data.draw(odd_parts(part)), "id": "odd"}
    inside[kind].insert(data.draw(st.integers(0, len(inside[kind]))), bad)

    found = parsed(part, odd)

    assert siblings(found) == siblings(parsed(part, plain))
    assert "odd" in {each.entity_id for each in found.records if isinstance(each, Entity)} or (
        bad.get("type") in homestatus.DASHBOARDS
    )
    assert is_stored(found)


@settings(max_examples=200, deadline=None)
@given(
    schedules=st.lists(
        _garbage | st.dictionaries(st.sampled_from(sorted(topology._NAMES)), _garbage)
    ),
    place=st.sampled_from(["schedules", "therm_schedules"]),
)
def test_odd_schedules_cost_nothing_else(schedules: Any, place: str) -> None:
    """Whatever a home's schedules are, all that is in the home is stored as without them."""
    envelope = household("topology")
    envelope["body"]["homes"][0][place] = schedules

    found = parsed("topology", envelope)

    plain = [
        each for each in siblings(parsed("topology", household("topology"))) if each.kind != "home"
    ]
    assert [each for each in siblings(found) if each.kind != "home"] == plain
    assert is_stored(found)


@settings(max_examples=200, deadline=None)
@given(
    errors=st.lists(
        _garbage
        | st.fixed_dictionaries({"id": st.sampled_from(["x", "y"]) | _garbage, "code": _garbage}),
        max_size=4,
    )
    | _garbage
)
def test_odd_errors_cost_nothing_else(errors: Any) -> None:
    """Whatever stands among the errors, what was told is stored; only who is named is out."""
    envelope = household("status")
    envelope["body"]["errors"] = errors

    found = parsed("status", envelope)

    plain = siblings(parsed("status", household("status")))
    ids = {each.entity_id for each in plain if isinstance(each, Entity)}
    rest = [
        each for each in siblings(found) if not isinstance(each, Entity) or each.entity_id in ids
    ]
    assert rest == plain
    assert is_stored(found)
