"""Weather stations: `getstationsdata`, and which history each of their modules has.

Stations measure every five minutes and upload every ten: asking for the dashboard more often
returns the same answer. The rows between two uploads come with the trailing `getmeasure`.
"""

from __future__ import annotations

from collections.abc import Mapping

from netatmo_ingestd.models import Priority
from netatmo_ingestd.polls import Endpoint, ModuleType, Parsed, Poll, Reply, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.dashboards import Line, parse_devices

_CLIMATE = ("Temperature", "Humidity")
_WIND = ("WindStrength", "WindAngle", "GustStrength", "GustAngle")
_INDOOR = ("Temperature", "CO2", "Humidity")
_MAIN = ("Temperature", "CO2", "Humidity", "Pressure", "Noise")

MODULE_TYPES = {
    name: ModuleType("weather", history, scope="read_station")
    for name, history in (
        ("NAMain", _MAIN),
        ("NAModule1", _CLIMATE),
        ("NAModule2", _WIND),
        ("NAModule3", ("Rain",)),
        ("NAModule4", _INDOOR),
    )
}
LEFT_OUT: Mapping[str, str] = {
    "user": "the owner's mail address and display units; values are metric whatever they say",
    "cipher_id": "the station's own id once more, encrypted; only in old answers",
    "WindHistoric": "samples of the last hour by old firmware; getmeasure has them as rows",
}
"""Fields that no record takes, on purpose, and why."""

_LINE = Line(
    endpoint="getstationsdata",
    kinds=MODULE_TYPES,
    names=("module_name", "home_name", "station_name"),
    home_names=("home_name", "station_name"),
    kept="station_name",
)


def parse_stations(reply: Reply, poll: Poll) -> Parsed:
    """One measurement for each module that has reported, and what describes it and its home.

    body      {"devices": [{"_id", "dashboard_data": {"time_utc", …}, "modules": [ …same… ]}]}
    Units     as Netatmo sends them: °C, %, ppm, mbar, dB, mm, km/h, degrees
    Problems  a device without `_id`; a value of a wrong type (null is no value). A module without
              `dashboard_data` is just silent, not one
    Raises    PayloadError if `devices` is absent
    Source    netatmo-api 3.1; tests/data/weather/
    """
    return parse_devices(reply, poll, _LINE)


WEATHER = Source(
    name="weather",
    scopes=NETATMO.scopes["weather"],
    endpoints=(
        Endpoint(
            name="getstationsdata",
            scope="read_station",
            cadence="weather",
            per="account",
            priority=Priority.LIVE,
            parse=parse_stations,
            secrets=("user.mail",),
        ),
    ),
    module_types=MODULE_TYPES,
)
