"""The fault matrix: everything that can go wrong, done for real to the real server, and what the person was told.

One row a fault, in the modules named after what breaks; `make faults` runs them all and writes docs/faults.md.
"""

from __future__ import annotations

from importlib import import_module

MODULES = (
    "metadata_ways",
    "metadata_answers",
    "metadata_access",
    "content_silence",
    "content_answers",
    "content_ways",
    "disk_room",
    "disk_files",
    "disk_machine",
    "people_moves",
    "people_others",
)


def load() -> None:
    """Have every module enter its rows."""
    for name in MODULES:
        import_module(f"faults.{name}")
