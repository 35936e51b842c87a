"""Indoor air quality monitors (Healthy Home Coach): `gethomecoachsdata`, and their history.

They measure and upload as weather stations do. The health index is told with the dashboard alone,
so the rows between two polls have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from netatmo_ingestd.models import Priority
from netatmo_ingestd.polls import Endpoint, ModuleType, Parsed, Poll, Reply, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.dashboards import Line, parse_devices

# Whether getmeasure knows `health_idx` is not documented; an unknown type refuses the whole call.
MODULE_TYPES = {
    "NHC": ModuleType(
        "aircare",
        ("Temperature", "CO2", "Humidity", "Noise", "Pressure"),
        scope="read_homecoach",
    ),
}
LEFT_OUT: Mapping[str, str] = {
    "user": "the owner's mail address and display units; values are metric whatever they say",
    "cipher_id": "the monitor's own id once more, encrypted; only in old answers",
}
"""Fields that no record takes, on purpose, and why."""

_LINE = Line(
    endpoint="gethomecoachsdata",
    kinds=MODULE_TYPES,
    # The owner's name of a monitor is `station_name`; every `module_name` seen was "Indoor".
    names=("station_name", "module_name"),
    home_names=("home_name",),
    kept="module_name",
)


def parse_coaches(reply: Reply, poll: Poll) -> Parsed:
    """One measurement for each monitor that has reported, and what describes it and its home.

    body      {"devices": [{"_id", "dashboard_data": {"time_utc", "health_idx", …}}]}
    Units     as Netatmo sends them: °C, %, ppm, mbar, dB; health index 0 to 4
    Problems  as of parse_stations. Without `dashboard_data` a monitor is just silent, even one
              that is called reachable
    Raises    PayloadError if `devices` is absent
    Source    netatmo-api 3.2; tests/data/aircare/
    """
    return parse_devices(reply, poll, _LINE)


AIRCARE = Source(
    name="aircare",
    scopes=NETATMO.scopes["aircare"],
    endpoints=(
        Endpoint(
            name="gethomecoachsdata",
            scope="read_homecoach",
            cadence="aircare",
            per="account",
            priority=Priority.LIVE,
            parse=parse_coaches,
            secrets=("user.mail",),
        ),
    ),
    module_types=MODULE_TYPES,
)
