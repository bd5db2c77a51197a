"""The PyTorch runtime: batches at fixed addresses, and noise that is drawn on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reverie.engine.runtime import Batch
from reverie.engine.runtimes.device_noise import device_noise, philox
from reverie.engine.runtimes.torch import TorchRuntime
from reverie.train.export import write_random_world
from reverie.world import World

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_random_world(tmp_path_factory.mktemp("world"))


def begun(world: World, num_slots: int) -> TorchRuntime:
    runtime = TorchRuntime(world, "cpu")
    runtime.allocate(num_slots)
    start = world.starts[0]
    for slot in range(num_slots):
        runtime.prefill(slot, start.frames, start.actions, 2**64 - 1 - slot)
    return runtime


def test_a_session_does_not_depend_on_who_else_plays(world: World) -> None:
    """Batches of every size up to all slots, filled up or not, in changing company."""
    script = RNG.random((12, world.config.action_space.width)).astype(np.float32)
    together, alone = begun(world, 6), begun(world, 6)
    for index, company in enumerate([(3,), (3, 0, 5), (1, 3), (4, 3, 2, 1, 0), (0, 1, 2, 3, 4, 5)]):
        actions = np.stack([script[index if slot == 3 else 11 - slot] for slot in company])
        indices = tuple(index for _ in company)
        drawn = together.step(Batch(company, actions, company, indices, 1))
        if index % 2:
            together.commit(company)
        for slot in company:
            own = Batch((slot,), actions[[company.index(slot)]], (slot,), (index,), 1)
            expected = alone.step(own)[0].astype(int)
            assert np.abs(drawn[company.index(slot)] - expected).max() <= 1
    assert together.num_slots == 6


def test_costs_of_a_size_hold_for_what_it_is_filled_up_from(world: World) -> None:
    costs = begun(world, 3).cost_table()
    assert {b for b, _ in costs} == {1, 2, 3}
    assert costs[1, 4] > costs[1, 1] > 0


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of Random123
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_its_known_answers(
    counter: list[int], key: list[int], expected: list[int]
) -> None:
    words = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert [int(word) for word in words] == expected


def test_device_noise_is_normal_and_its_own_for_every_frame() -> None:
    seeds = torch.tensor([5, 5, 6, -1])
    indices = torch.tensor([0, 1, 0, -16])
    drawn = device_noise(seeds, indices, 0, (100, 31))
    assert drawn.shape == (4, 100, 31)
    assert drawn.mean().abs() < 0.03
    assert abs(drawn.std() - 1) < 0.03
    assert abs(drawn.pow(4).mean() - 3) < 0.2
    others = [drawn[1:], device_noise(seeds[:1], indices[:1], 1, (100, 31))]
    for other in torch.cat(others).flatten(1):
        assert abs(np.corrcoef(drawn[0].flatten(), other)[0, 1]) < 0.1
    again = device_noise(seeds[1:2], indices[1:2], 0, (100, 31))
    assert torch.equal(again[0], drawn[1])
