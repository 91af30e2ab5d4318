"""Nabij on one machine: embedded servers, workers, data directory, and their status."""
