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
from pathlib import Path
from typing import Any

import pytest

from netatmo_ingestd import records
from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Batch, Entity, Measurement
from netatmo_ingestd.polls import Parsed, Poll
from netatmo_ingestd.sources import MODULE_TYPES, fields, topology
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.quantities import UNITS
from netatmo_ingestd.sources.topology import HOMESDATA
from netatmo_ingestd.upserts import operations
from tests.test_sources_weather import _entity, _exact, _keys, _row, reply_of

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


@pytest.mark.parametrize("name", sorted(MODULE_TYPES))
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

    assert named == set(MODULE_TYPES)
