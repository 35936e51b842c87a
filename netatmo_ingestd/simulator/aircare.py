"""The air care product line: `gethomecoachsdata`; its history is `getmeasure`, in `weather`."""

from __future__ import annotations

from collections.abc import Mapping

from netatmo_ingestd.simulator import dashboard, oddities
from netatmo_ingestd.simulator.answers import Json
from netatmo_ingestd.simulator.weather import Call, Method, answer


def coaches(call: Call) -> Json:
    """`gethomecoachsdata` (netatmo-api 3.2)."""
    world, view = call.view.world, call.view
    mine = [dashboard.coach(view, world.coaches[i]) for i in call.account.coaches]
    return answer(call, oddities.applied(mine, call.faults, view.now))


METHODS: Mapping[str, Method] = {
    "gethomecoachsdata": Method(("read_homecoach",), coaches),
}
