"""Meadow: a headless first-person voxel world, the truth that the bundled neural world learns
from.
"""

from reverie.envs.meadow.conditions import SEASONS, TIMES_OF_DAY, WEATHERS, Conditions
from reverie.envs.meadow.sim import MEADOW_ACTIONS, Meadow

__all__ = ["MEADOW_ACTIONS", "SEASONS", "TIMES_OF_DAY", "WEATHERS", "Conditions", "Meadow"]
