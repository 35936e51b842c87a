"""Emergency lighting of Legrand: the controllers of a site, and what their failure flags mean.

A failure is a number whose meaning only `decodeFailureFlag` tells, the same for all time: it is
asked once for each reference and flag (`failures`). Source: netatmo-api 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from netatmo_ingestd.models import Entity, FailureCode, Json, Priority, whole_seconds
from netatmo_ingestd.polls import Endpoint, ModuleType, Parsed, Poll, Problem, Reply, Source
from netatmo_ingestd.providers import LEGRAND
from netatmo_ingestd.sources.legrand import SITE, converted, each_of, id_of, moment, site
from netatmo_ingestd.sources.reading import Block, flag, ident, number, present, scalar, text

CONTROLLER = "emergency_controller"
FAILURE_TYPES = frozenset(
    {f"BLOCK.{each}" for each in (
        "OK", "FAULTY_COMMUNICATION", "OTHER_FAULTY", "ALARM_STATE", "DLD", "FAULTY_POWER_SUPPLY",
        "FAULTY_BATTERY", "DISCONNECTED_BATTERY", "FAULTY_EMERGENCY_LIGHT", "FAULTY_ELECTRONICAL",
    )}
    | {f"REMOTE.STATUS.{each}" for each in (
        "OK", "SECTOR_ON_BUS", "BUS_SHORT_CIRCUIT", "NO_BLOCK_RESPONSE", "CAPACITY_OVERFLOW",
        "NFC_COMM_FAULT", "QUARTZ_FAULT", "BATTERY_FAULT", "BLOCK_ENROLLMENT_FAULT",
        "ELECTRONIC_FAULT", "OUT_SUPERVISION",
    )}
)  # fmt: skip
"""What a failure flag may mean; another word is kept too, and counted as drift."""
_FLAG_KEYS = ("failureFlag", "flag", "status", "code")
_SCOPE = "safety.read"


def parse_controllers(reply: Reply, poll: Poll) -> Parsed:
    """The site, and each of its controllers with its state.

    body      [{"id", "name", "reference", "serialNumber", "lastStatusUpdate", "status",
              "failures": […], "alert", "lastAlertUpdate", "alertLevel"}]
    Problems  a controller without `id`; a value of a wrong type; a failure that is no flag
    Raises    PayloadError if the body is no list
    """
    if reply.body is None:  # status 204
        return Parsed()
    told, problems = each_of(reply, "site_controllers")
    found: dict[str, Entity] = {}
    for block in told:
        controller = _controller(block, poll)
        if controller is not None:
            found.setdefault(controller.entity_id, controller)
    return Parsed((site(poll.account, poll.entity_id), *found.values()), problems)


def _controller(block: Block, poll: Poll) -> Entity | None:
    entity_id = id_of(block, "the controller is left out")
    if entity_id is None:
        return None
    described = block.read(
        {
            "name": ("name", text),
            "reference": ("reference", ident),
            "serialNumber": ("serial", text),
        }
    )
    state = block.read(
        {
            "status": ("status", scalar),
            "alert": ("alert", flag),
            "alertLevel": ("alert_level", number),
        }
    )
    times = {"last_seen": moment(block, "lastStatusUpdate"),
             "last_alert": moment(block, "lastAlertUpdate")}  # fmt: skip
    codes = sorted(code for _, code in failures_of(block.fields))
    listed = block.fields.get("failures") or []
    if not isinstance(listed, list) or any(_flag_in(each) is None for each in listed):
        block.problem("failures", "has what is no failure flag")
    known = {"id", "name", "reference", "serialNumber", "lastStatusUpdate", "lastAlertUpdate",
             "status", "alert", "alertLevel", "failures"}  # fmt: skip
    return Entity(
        account=poll.account,
        kind="module",
        entity_id=entity_id,
        home_id=poll.entity_id,
        device_id=entity_id,
        type=CONTROLLER,
        description=present(type=CONTROLLER, **described),
        condition=present(**times),
        state={**present(**state), "failures": codes},
        other=block.unknown(known),
    )


def failures_of(controller: Mapping[str, Json]) -> Iterator[tuple[str, int]]:
    """(reference, flag) of each failure of a controller as told; what is no flag is left out.

    Which shape a failure has is not known: a number, a text of one, or an object with it.
    """
    listed = controller.get("failures")
    for each in listed if isinstance(listed, list) else ():
        told = each.get("reference") if isinstance(each, dict) else None
        reference, code = ident(told) or ident(controller.get("reference")), _flag_in(each)
        if reference and code:
            yield reference, code


def _flag_in(failure: Json) -> int | None:
    """The flag of a failure, 0 for none; None when there is nothing like it."""
    told = failure if isinstance(failure, dict) else {"flag": failure}
    codes = (_whole_number(told.get(key)) for key in _FLAG_KEYS)
    return next((code for code in codes if code is not None), None)


def parse_failure_flag(reply: Reply, poll: Poll) -> Parsed:
    """What a flag means.

    body      [{"flag": "0x0008", "failureType": "BLOCK.FAULTY_BATTERY"}], one for each set bit
    Problems  an entry without `failureType`; a word that is not known is drift
    Raises    PayloadError if the body is no list
    """
    told, problems = each_of(reply, "failure_flag")
    meanings = []
    for block in told:
        word = block.told("failureType", text)
        if not word:
            block.problem("failureType", "missing")
            continue
        if word not in FAILURE_TYPES:
            block.problem("failureType", f"unknown word {word[:64]}", drift=True)
        block.unknown(("flag", "failureType"))
        meanings.append(present(flag=converted(block, "flag", _flag_text), type=word[:64]))
    if not meanings:
        return Parsed((), [*problems, Problem("body", "tells no meaning")])
    code = FailureCode(
        account=poll.account,
        reference=poll.params["reference"],
        flag=int(poll.params["flag"]),
        failures=meanings,
        time=whole_seconds(reply.time_server),
    )
    return Parsed((code,), problems)


def failure_poll(account: str, reference: str, code: int) -> Poll:
    """The call that decodes a flag; its target is no entity that is stored."""
    target = Entity(account, "code", f"{reference}|{code}", "", "", CONTROLLER, {})
    params = {"reference": reference, "flag": str(code)}
    return Poll(FAILURE_FLAG, account, params, target=target)


def _whole_number(value: Json) -> int | None:
    """A flag as a number, or as decimal or hexadecimal text."""
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|\d{1,10}", value):
        value = int(value, 0 if value[:2].lower() == "0x" else 10)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 1 << 32 else None


def _flag_text(value: Json) -> str | None:
    return text(f"0x{value:04x}" if isinstance(value, int) and value >= 0 else value)


SITE_CONTROLLERS = Endpoint(
    name="site_controllers",
    scope=_SCOPE,
    cadence="emergency",
    per=SITE,
    priority=Priority.LIVE,
    parse=parse_controllers,
)
FAILURE_FLAG = Endpoint(
    name="failure_flag",
    scope=_SCOPE,
    cadence="emergency",
    per="code",
    priority=Priority.EVENTS,
    parse=parse_failure_flag,
    lists=False,
)
EMERGENCY = Source(
    name="emergency",
    scopes=LEGRAND.scopes["emergency"],
    endpoints=(SITE_CONTROLLERS,),
    module_types={CONTROLLER: ModuleType("emergency", scope=_SCOPE)},
)
