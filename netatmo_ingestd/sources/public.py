"""Stations of others that Netatmo shows to everybody: `getpublicdata`, for an area of the settings.

An area is asked in tiles of a quarter of a degree: of a larger one the cloud shows a sample. Only
what a station tells now is there; it has no name, no home of ours, and no history is asked of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from netatmo_ingestd.errors import PayloadError
from netatmo_ingestd.models import Entity, Measurement, Priority, Record
from netatmo_ingestd.polls import Endpoint, Parsed, Poll, Reply, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.quantities import UPSTREAM
from netatmo_ingestd.sources.reading import (
    Block,
    blocks,
    ident,
    kind,
    moment,
    number,
    pair,
    plain,
    present,
    text,
)

_EPOCH = re.compile(r"[0-9]{1,11}")
TYPE = "public"
LEFT_OUT: Mapping[str, str] = {
    "enhanced": "whether the cloud polished the answer; says nothing of the weather",
}
"""Fields that no record takes, on purpose, and why."""

_NOW = {
    # Not `rain`: that is what fell since the previous sample, and both meet in an own row.
    "rain_live": "rain_live",
    "rain_60min": "rain_last_hour",
    "rain_24h": "rain_last_day",
    "wind_strength": "wind_strength",
    "wind_angle": "wind_angle",
    "gust_strength": "gust_strength",
    "gust_angle": "gust_angle",
}
_TIMES = {"rain_timeutc": ("rain",), "wind_timeutc": ("wind", "gust")}
_PLACE = {"location", "timezone", "country", "altitude", "city", "street"}
_STATION = {"_id", "place", "mark", "modules", "module_types", "measures", *LEFT_OUT}


def tile_poll(account: str, tile: str) -> Poll:
    """The call for one tile; its target is no entity that is stored, only what the call is for."""
    corners = dict(zip(("lat_sw", "lon_sw", "lat_ne", "lon_ne"), tile.split(","), strict=True))
    return Poll(PUBLIC_DATA, account, corners, target=Entity(account, "area", tile, "", "", "", {}))


def parse_public(reply: Reply, poll: Poll) -> Parsed:
    """What each station says of itself, and one row for each of its modules and times.

    body      [{"_id", "place": {"location": [lon, lat], …}, "measures": {module id: one of
              {"res": {epoch: [values]}, "type": [names]}, {"rain_live", …, "rain_timeutc"},
              {"wind_strength", …, "wind_timeutc"}}}]
    Units     °C, %, mbar, mm, km/h, degrees, as Netatmo sends them
    Problems  a station or module without a usable id; a value of a wrong type
    Raises    PayloadError if the body is no list
    Source    netatmo-api 3.11; tests/data/public/
    """
    if not isinstance(reply.body, list):
        raise PayloadError(
            f"{PUBLIC_DATA.name}: body is {kind(reply.body)}, no list",
            endpoint=PUBLIC_DATA.name,
            path="body",
        )
    whole = Block({}, "body", reply.time_server, [])
    found: dict[str, list[Record]] = {}
    for where, fields in blocks(reply.body, "body", whole.problems):
        block = replace(whole, fields=fields, where=where)
        station_id = ident(fields.get("_id"))
        if station_id is None:
            block.problem("_id", "missing or unusable; the station is left out")
        elif station_id not in found:
            found[station_id] = _read_station(poll.account, station_id, block)
    return Parsed([each for records in found.values() for each in records], whole.problems)


def as_known(parsed: Parsed, known: Mapping[str, Entity]) -> Parsed:
    """Where a station is one that an account has itself: its rows are told of as its own are.

    known  by id, what other endpoints describe
    """
    records: list[Record] = []
    for each in parsed.records:
        own = known.get(each.module_id) if isinstance(each, Measurement) else None
        if isinstance(each, Entity) and each.entity_id in known:
            continue  # its own description says more
        if isinstance(each, Measurement) and own is not None:
            whose = {name: getattr(own, name) for name in ("account", "home_id", "device_id")}
            records.append(replace(each, module_type=own.type, **whose))
        else:
            records.append(each)
    return replace(parsed, records=records)


def _read_station(account: str, station_id: str, block: Block) -> list[Record]:
    rows = [
        row
        for module_id, measured in _measures(block)
        for row in _rows(account, station_id, module_id, measured)
    ]
    place = block.inner("place")
    location = place.told("location", pair) or (None, None)
    newest = max((row.time for row in rows), default=None)
    latest: dict[str, float] = {}
    for row in sorted(rows, key=lambda each: each.time):
        latest |= row.values
    station = Entity(
        account=account,
        kind="station",
        entity_id=station_id,
        home_id="",
        device_id=station_id,
        type=TYPE,
        description=present(
            type=TYPE,
            longitude=location[0],
            latitude=location[1],
            modules=_modules(block),
            **{name: place.told(name, text) for name in ("timezone", "country", "city", "street")},
            altitude=place.told("altitude", number),
        ),
        condition=present(mark=block.told("mark", number)),
        latest=(newest, latest) if newest and latest else None,
        other=(
            *block.unknown(_STATION),
            *((f"place.{name}", value) for name, value in place.unknown(_PLACE)),
        ),
    )
    return [station, *rows]


def _modules(block: Block) -> list[dict[str, Any]] | None:
    """Id and type of each module; either field may be the only one that names it."""
    types = block.inner("module_types")
    listed = block.told("modules", lambda it: it if isinstance(it, list) else None) or []
    ids = dict.fromkeys([*filter(ident, listed), *filter(ident, types.fields)])
    return [present(id=each, type=text(types.fields.get(each))) for each in ids] or None


def _measures(block: Block) -> Iterator[tuple[str, Block]]:
    measures = block.inner("measures")
    for key in measures.fields:
        if ident(key) is None:
            measures.problem("*", "an unusable module id; its values are left out")
        else:
            # Without the id: a problem is one of all modules, not of each.
            inner = replace(measures, fields={"*": measures.fields[key]}).inner("*")
            yield key, inner


def _rows(account: str, station_id: str, module_id: str, measured: Block) -> Iterator[Measurement]:
    values: dict[datetime, dict[str, float]] = {}
    strange = measured.unknown({"res", "type", *_NOW, *_TIMES})
    other: dict[datetime, list[tuple[str, Any]]] = {}
    for at, told, unknown in (*_series(measured), *_current(measured)):
        values.setdefault(at, {}).update(told)
        other.setdefault(at, [*strange]).extend(unknown)
    for at in sorted(values):
        if values[at] or other[at]:
            yield Measurement(
                account=account,
                home_id="",
                device_id=station_id,
                module_id=module_id,
                module_type=TYPE,
                scale="max",
                time=at,
                values=values[at],
                source=PUBLIC_DATA.name,
                other=tuple(other[at]),
            )


_Told = tuple[datetime, dict[str, float], list[tuple[str, Any]]]


def _series(measured: Block) -> Iterator[_Told]:
    """Of `res` and `type`: a column for each type, a row for each time."""
    names = measured.told("type", lambda it: it if isinstance(it, list) else None) or []
    ours = [UPSTREAM.get(name.lower()) if isinstance(name, str) else None for name in names]
    for place, (name, our) in enumerate(zip(names, ours, strict=True)):
        if our is None:
            what = text(name) if isinstance(name, str) else kind(name)
            measured.problem(f"type[{place}]", f"unknown quantity {what}", drift=True)
    rows = measured.inner("res")
    for key in rows.fields:
        at = moment(int(key), rows.server) if _EPOCH.fullmatch(key) else None
        cells = rows.fields[key]
        if at is None:
            rows.problem("*", "no plausible time; its values are left out")
        elif not isinstance(cells, list) or len(cells) != len(names):
            what = f"{len(cells)} values" if isinstance(cells, list) else kind(cells)
            rows.problem("*", f"{what} for {len(names)} types")
            at = None
        if at is None:
            continue
        row = replace(rows, fields={str(n): cell for n, cell in enumerate(cells)})
        told = present(**{our: row.told(str(n), number) for n, our in enumerate(ours) if our})
        strange = [
            (text(name) or "", plain(cell))
            for name, our, cell in zip(names, ours, cells, strict=True)
            if our is None
        ]
        yield at, told, strange


def _current(measured: Block) -> Iterator[_Told]:
    """Of rain and wind: named values with a time of their own."""
    for time_key, families in _TIMES.items():
        keys = [each for each in _NOW if each in measured.fields and each.startswith(families)]
        if not keys:
            continue
        at = measured.moment(time_key)
        if at is None:
            measured.problem(time_key, "missing or no plausible time; its values are left out")
            continue
        told = {_NOW[key]: measured.told(key, number) for key in keys}
        # An angle of −1 is calm: no wind, so no direction.
        calm = {name for name, each in told.items() if name.endswith("angle") and (each or 0) < 0}
        yield at, present(**{name: each for name, each in told.items() if name not in calm}), []


PUBLIC_DATA = Endpoint(
    name="getpublicdata",
    scope="",
    cadence="public",
    per="area",
    # After what is the account's own.
    priority=Priority.EVENTS,
    parse=parse_public,
    # The next tile, and a crowded one, leave stations out that are still there.
    lists=False,
)

PUBLIC = Source(
    name="public",
    scopes=NETATMO.scopes["public"],
    endpoints=(PUBLIC_DATA,),
    module_types={},
)
