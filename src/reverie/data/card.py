"""The card of a data set (README.md): what it is, how it was made and used, what players did."""

from __future__ import annotations

from typing import Any

import numpy as np

from reverie.data.episode import LOG_FILE, SPLITS, Dataset

_CARD = """# {name}: recorded play as seeds and actions

{frames} frames ({hours:.2f} hours at {fps:g} frames a second) of `{env_id}`, {width} x {height}
pixels when rendered. No picture is stored: an episode is a world seed and an action log
({bytes_per_frame:.2f} bytes a frame), and the environment draws its frames again.

| split | episodes | frames |
|---|---|---|
{totals}

The split follows from the world seed (mod 20: 18 validation, 19 test, the rest train), so no world
is in two splits.

## Use

```python
from reverie.data import Dataset
from reverie.data.render import render

rendered = render(Dataset.load({path!r}), "train")
rendered.frames, rendered.actions, rendered.boundaries     # uint8 [N, h, w, 3], float32 [N, A]
for batch in rendered.segments(16).batches(batch_size=8, seed=0):
    ...                                                    # actions[:, i] led into frames[:, i]
```

Files: `dataset.json` (environment, action space, policy, totals), `actions.npz` (per episode: seed,
split, number, num_actions, reset options, fingerprints of its first and last frame; the action
columns of all episodes end to end).

## Made with

Base seed {seed}, policy `{policy}` {mix}, at most {episode_actions} actions an episode, environment
source {code}. Synthetic: scripted players in a simulator, no person's data. It shows what these
players do and nothing else.

## What the players did

{statistics}
"""


def write(dataset: Dataset) -> str:
    """The README of a data set that has been saved, Markdown."""
    config, totals = dataset.config, dataset.totals()
    frames = sum(total["frames"] for total in totals.values())
    return _CARD.format(
        name=dataset.path.name,
        path=dataset.path.name,
        frames=f"{frames:,}",
        hours=frames / config.fps / 3600,
        bytes_per_frame=(dataset.path / LOG_FILE).stat().st_size / max(frames, 1),
        totals="\n".join(
            f"| {split} | {totals[split]['episodes']} | {totals[split]['frames']:,} |"
            for split in SPLITS
        ),
        mix=f"({', '.join(f'{share:.0%} {part}' for part, share in config.policy_mix.items())})",
        statistics="\n".join(
            f"- {name}: {value}" for name, value in action_statistics(dataset).items()
        )
        or "Nothing yet.",
        **{
            key: getattr(config, key)
            for key in (
                "env_id",
                "fps",
                "width",
                "height",
                "seed",
                "policy",
                "episode_actions",
                "code",
            )
        },
    )


def action_statistics(dataset: Dataset) -> dict[str, Any]:
    """Shares of each key, camera speeds and stillness over all episodes; name -> readable value,
    empty without episodes.
    """
    actions, episodes = dataset.config.actions, dataset.episodes
    if not episodes:
        return {}
    vectors = np.concatenate([dataset.actions(episode) for episode in episodes])
    if actions.kind == "vector":
        return {
            "mean": np.round(vectors.mean(axis=0), 3).tolist(),
            "deviation": np.round(vectors.std(axis=0), 3).tolist(),
        }
    assert actions.space is not None
    space = actions.space
    held = vectors[:, : len(space.keys)] > 0.5
    statistics: dict[str, Any] = {
        f"`{key}` held": f"{share:.1%}"
        for key, share in zip(space.keys, held.mean(axis=0), strict=True)
    }
    statistics["no key held"] = f"{(~held.any(axis=1)).mean():.1%}"
    statistics["exactly one key held"] = f"{(held.sum(axis=1) == 1).mean():.1%}"
    if space.camera_limit:
        camera = vectors[:, space.camera_columns] * space.camera_limit
        still = ~camera.any(axis=1)
        statistics["camera at rest"] = f"{still.mean():.1%}"
        statistics["nothing at all"] = f"{(still & ~held.any(axis=1)).mean():.1%}"
        for axis, name in enumerate(("yaw", "pitch")):
            statistics[f"{name} speed, degrees a frame"] = _speeds(camera[:, axis])
    if space.num_slots:
        slots = vectors[:, space.slot_columns].mean(axis=0)
        statistics["slots"] = ", ".join(f"{i}: {share:.0%}" for i, share in enumerate(slots, 1))
    return statistics


def _speeds(turns: np.ndarray) -> str:
    """Shares of turns by signed speed."""
    edges = np.array([-np.inf, -8.0, -3.0, -0.25, 0.25, 3.0, 8.0, np.inf])
    names = ("< -8", "-8..-3", "-3..0", "0", "0..3", "3..8", "> 8")
    shares = np.histogram(turns, edges)[0] / len(turns)
    return ", ".join(f"{name}: {share:.1%}" for name, share in zip(names, shares, strict=True))
