"""The Python SDK: play a world from a program, frame by frame.

`environment.WorldEnv` is the same as a Gymnasium environment, `reverie/World-v0`.
"""

from reverie.client.local import LocalSession, LocalWorld, load

__all__ = ["LocalSession", "LocalWorld", "load"]
