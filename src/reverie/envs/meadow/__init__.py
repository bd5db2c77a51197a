"""Meadow: a headless first-person voxel world, the truth that the bundled neural world learns
from.
"""

from reverie.envs.meadow.conditions import ATTRIBUTES, Conditions
from reverie.envs.meadow.sim import MEADOW_ACTIONS, PROMPTED_ACTIONS, Meadow

__all__ = ["ATTRIBUTES", "MEADOW_ACTIONS", "PROMPTED_ACTIONS", "Conditions", "Meadow"]
