"""Wiring devices and shutters of Legrand, BTicino, Bubendorff, Somfy, VELUX and Zigbee: switches,
sockets, dimmers, shutters, ventilation, meters.

What measures power keeps energy in half hours, one column for each tariff. Which columns are asked,
and why no others:

total, $0, $1, $2  base, peak and off-peak: what every known client asks and every recording shows.
                   Further tariffs ($3 to $11) are in the list of one client of the maker's own app
                   alone, and a name that this method does not know refuses the whole call (400,
                   code 21). A half hour whose asked columns are all null is told as drift: it
                   would be the sign of a further tariff.
no prices          `…_price` are in the lists too, but in no recorded answer. In the same call they
                   could cost the energy (a type that does not apply may empty the answer), in one
                   of their own they double the calls of every meter; the prices themselves stand in
                   the electricity schedule of the home.
"""

from __future__ import annotations

from netatmo_ingestd.polls import ModuleType, Source
from netatmo_ingestd.providers import NETATMO
from netatmo_ingestd.sources.homestatus import HOMESTATUS
from netatmo_ingestd.sources.topology import HOMESDATA

METER = tuple(f"sum_energy_buy_from_grid{tariff}" for tariff in ("", "$0", "$1", "$2"))
ECOMETER = tuple(f"sum_energy_elec{tariff}" for tariff in ("", "$0", "$1", "$2"))

# Sockets, switches, dimmers, meters. Of some (NLPD, NLUI, NLUP, NLUO, NLUF) it is not known whether
# they keep energy: an empty answer tells.
_METERS = """
    NLP NLPM NLPBS NLPO NLPT NLPC NLPS NLPD NLC NLL NLF NLFN NLFE NLM NLIS NLUI NLUP NLUO NLUF NLLF
"""
# Gateways, shutters, a garage door, remotes and what is not known to measure anything.
_OTHERS = {
    "read_magellan": """
        NLG NLGS NLV NLLV NLLM NLIV NLJ NLT NLD NLDD NLDP NLAO NLAS NLAV NLTS TPSRS Z3L Z3V EBU
    """,
    "read_mx": "BNCX BNEU BNDL BNSL",
    "read_mhs1": """
        BNMH BNTH BNFC BNTR BNIL BNLD BN3L BNMS BNAS BNAB BNCS BNXM BNCU BNSE
    """,
    "read_bfi": "BFII BFIC BFIO BFIS",
    "read_bubendorff": "NBG NBR NBO NBS",
    # VELUX has a cloud of its own: no login of ours shows them.
    "": "NXG NXO NXS NXD",
}

MODULE_TYPES = {
    **{name: ModuleType("control", METER, "30min", "read_magellan") for name in _METERS.split()},
    # Three phases: the base is their sum, so that they have no energy of their own.
    "NLY": ModuleType("control", METER, "30min", "read_magellan", silent=("#1", "#2", "#3")),
    # Lines of gas, hot and cold water have no type that is known to answer.
    "NLE": ModuleType("control", ECOMETER, "30min", "read_magellan", silent=("#6", "#7", "#8")),
    **{
        name: ModuleType("control", scope=scope)
        for scope, names in _OTHERS.items()
        for name in names.split()
    },
}

CONTROL = Source(
    name="control",
    scopes=NETATMO.scopes["control"],
    endpoints=(HOMESDATA, HOMESTATUS),
    module_types=MODULE_TYPES,
)
