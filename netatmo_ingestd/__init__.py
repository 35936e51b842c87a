"""Brings a home's Netatmo and Legrand data into a MongoDB its owner controls."""

__version__ = "0.1.0"
