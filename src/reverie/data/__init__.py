"""Recorded play: a data set is seeds and an action log; its frames are drawn again where needed.

    record.py       play an environment with a policy, keep seeds and actions: a data set folder
    policies.py     who plays: scripted mixture, sticky random, standing still
    options.py      what the scripted player does, one short thing at a time
    player.py       what the scripted player knows, and how they turn their head
    episode.py      Episode, Dataset: the folder on disk, 1-4 bytes a frame
    actions.py      actions <-> compact columns
    mapping.py      a TOML file: what a player's keys do in an environment of any action space
    card.py         the data set's README, with what the players did
    environment.py  any Gymnasium environment with pixels, seen in one way
    render.py       data set -> memory-mapped frames, by many processes
    segments.py     frames or latents -> segments and batches for training
    parallel.py     the same over many jobs, with a progress bar

Importing this package needs numpy only; Gymnasium is imported when an environment is opened.
"""

from reverie.data.actions import ActionFormat
from reverie.data.episode import SPLITS, Dataset, Episode
from reverie.data.segments import Segments

__all__ = ["SPLITS", "ActionFormat", "Dataset", "Episode", "Segments"]
