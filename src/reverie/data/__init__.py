"""Recorded play: a data set is seeds and an action log, and its frames are re-rendered where they
are needed.

    record.py       play an environment with a policy, keep seed + actions      -> data set folder
    (1-4 bytes a frame)
    policies.py     who plays: scripted mixture, sticky random, standing still  (options.py: what it
    does, step by step)
    episode.py      Episode, Dataset: the folder on disk
    actions.py      actions <-> compact columns
    environment.py  any Gymnasium environment with pixels, seen in one way
    render.py       data set -> memory-mapped frames, by many processes
    segments.py     frames or latents -> segments and batches for training

Importing this package needs numpy only; Gymnasium is imported when an environment is opened.
"""

from reverie.data.actions import ActionFormat
from reverie.data.episode import SPLITS, Dataset, Episode
from reverie.data.segments import Segments

__all__ = ["SPLITS", "ActionFormat", "Dataset", "Episode", "Segments"]
