"""`python -m netatmo_ingestd` is the command `netatmo-ingestd`."""

from netatmo_ingestd.cli import main

main()
