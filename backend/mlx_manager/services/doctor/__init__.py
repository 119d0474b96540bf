"""The check-up: looks at the machine and at the way to the Hub, and changes nothing.

examination   the checks, each bounded in time, side by side where none waits for another
ground        folders and disks, tried for real
hub_way       a name, a connection, TLS: the way to the Hub, step by step
hub_answers   what the Hub, its CDN and its store for Xet answer
"""

from __future__ import annotations

from mlx_manager.services.doctor.examination import Check, Pending, Result, examine
from mlx_manager.services.doctor.ground import look_at_cache, look_at_disk, look_at_folder
from mlx_manager.services.doctor.hub_answers import HubAnswers
from mlx_manager.services.doctor.hub_way import HubWay

__all__ = [
    "Check",
    "HubAnswers",
    "HubWay",
    "Pending",
    "Result",
    "examine",
    "look_at_cache",
    "look_at_disk",
    "look_at_folder",
]
