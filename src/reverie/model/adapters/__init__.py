"""Models that Reverie can play: one file each, with a `CausalModel`."""
