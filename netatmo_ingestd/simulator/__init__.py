"""A Netatmo cloud to play with, on loopback only: recomputable values, faults on demand."""
