"""Cameras, doorbells, door tags, sirens, smoke and carbon monoxide alarms.

None of them has rows: their past is events, their present is state.
"""

from __future__ import annotations

from netatmo_ingestd.polls import ModuleType, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.events import GETEVENTS
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.topology import HOMESDATA

MODULE_TYPES = {
    name: ModuleType("security", scope=scope)
    for name, scope in (
        ("NACamera", "read_camera"),
        ("NPC", "read_camerapro"),
        ("NOC", "read_presence"),
        ("NDB", "read_doorbell"),
        ("NBD", "read_doorbell"),  # so spelled by some
        ("NACamDoorTag", "read_camera"),
        ("NADoorTag", "read_camera"),  # likewise
        ("NIS", "read_camera"),
        ("NSD", "read_smokedetector"),
        ("NCO", "read_carbonmonoxidedetector"),
        ("NDL", ""),  # a door lock; seen in lists of types only
    )
}

SECURITY = Source(
    name="security",
    scopes=NETATMO.scopes["security"],
    endpoints=(HOMESDATA, HOMESTATUS, GETEVENTS),
    module_types=MODULE_TYPES,
)
