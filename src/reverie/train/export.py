"""Export: trained networks become a world folder that plays without PyTorch.

The weights are written once, as fp16, into model.safetensors; the three ONNX graphs read theirs out
of that file (ONNX external data: location, offset, length) and widen them to float32 when they are
loaded.
"""

from __future__ import annotations

import json
import logging
import struct
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from reverie import world as worlds
from reverie.core import Action, ActionSpace, ReverieError
from reverie.model.autoencoder import Autoencoder, to_frames, to_pixels
from reverie.model.denoiser import Denoiser, PlayPass
from reverie.prompts import Prompter
from reverie.train.quantize import Feed, calibration, quantize_decoder
from reverie.world import WEIGHTS, Start, World, WorldConfig


class _Encode(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, frames: Tensor) -> Tensor:
        return self.autoencoder.encode(to_pixels(frames))


class _Decode(nn.Module):
    """names: of what is given, in order."""

    def __init__(self, autoencoder: Autoencoder, names: Sequence[str]) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.names, inputs, strict=True))
        if "before" in given:
            given["before"] = to_pixels(given["before"])
        return to_frames(self.autoencoder.decode(**given))


class _Step(nn.Module):
    """`Denoiser.step` with the caches as a flat list of inputs and outputs, keys first."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        noisy, signal, step_size, action, phase_cos, phase_sin, *caches = inputs
        half = len(caches) // 2
        given = (noisy, signal, step_size, action, phase_cos, phase_sin)
        clean, new_k, new_v = self.denoiser.step(PlayPass(*given, caches[:half], caches[half:]))
        return clean, *new_k, *new_v


def export_world(
    path: Path,
    name: str,
    autoencoder: Autoencoder,
    denoiser: Denoiser,
    action_space: ActionSpace,
    *,
    starts: Sequence[Start] = (),
    card: str = "",
    fps: int = 20,
    denoising_steps: Sequence[int] = (1, 2, 4),
    context_signal: float = 0.9,
    noise_scale: float = 1.0,
    prompts: Sequence[str] = (),
    prompter: Prompter | None = None,
    pictures: NDArray[np.uint8] | None = None,
) -> World:
    """Write a world folder and load it back. prompts: examples. prompter: reads them; fitted to the
    names of the attributes alone if not given. pictures: real ones, [n, h, w, 3], that the decoder
    is fitted to 8 bits on; without any it stays as precise as the rest. Raises ReverieError where
    networks and action space do not fit each other.
    """
    _check_fit(autoencoder, denoiser, action_space)
    networks = {
        "autoencoder": autoencoder.float().cpu().eval(),
        "denoiser": denoiser.float().cpu().eval(),
    }
    config = WorldConfig(
        name=name,
        width=autoencoder.config.width,
        height=autoencoder.config.height,
        fps=fps,
        action_space=action_space,
        denoising_steps=tuple(denoising_steps),
        context=denoiser.config.context,
        context_signal=context_signal,
        noise_scale=noise_scale,
        prompts=tuple(prompts),
        autoencoder=_plain(asdict(autoencoder.config)),
        denoiser=_plain(asdict(denoiser.config) | {"frequencies": denoiser.config.frequencies}),
    )
    path.mkdir(parents=True, exist_ok=True)
    worlds.save(path, config, starts, card)
    weights = {
        f"{part}.{key}": value.to(torch.float16).contiguous()
        for part, network in networks.items()
        for key, value in network.state_dict().items()
    }
    save_file(weights, path / WEIGHTS)
    (path / WEIGHTS).chmod(0o644)  # safetensors leaves it to its owner alone
    feeds = [] if pictures is None else calibration(autoencoder, action_space, pictures)
    _write_graphs(path, autoencoder, denoiser, feeds)
    if action_space.attributes:
        (prompter or Prompter.fit(action_space.attributes)).save(path)
    return worlds.load(path)


def _check_fit(autoencoder: Autoencoder, denoiser: Denoiser, action_space: ActionSpace) -> None:
    if denoiser.config.action_width != action_space.told_width:
        raise ReverieError(
            f"the denoiser takes actions of {denoiser.config.action_width} numbers, "
            f"the action space has {action_space.told_width}; train it on this action space"
        )
    column = len(action_space.keys) if action_space.camera_limit else None
    if denoiser.config.camera_column != column:
        raise ReverieError(
            f"the denoiser looks for the camera in column {denoiser.config.camera_column} of an "
            f"action, the action space has it in {column}; train it on this action space"
        )
    counts = tuple(len(values) for values in action_space.attributes.values())
    if autoencoder.config.attributes != counts:
        raise ReverieError(
            f"the decoder paints attributes of {list(autoencoder.config.attributes)} values, the "
            f"action space has attributes of {list(counts)}; train the decoder on this action space"
        )
    if (
        denoiser.config.grid != autoencoder.config.grid
        or denoiser.config.channels != autoencoder.config.channels
    ):
        raise ReverieError(
            "denoiser and autoencoder do not share their latents; train one on the other"
        )


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(settings))


def _write_graphs(
    path: Path, autoencoder: Autoencoder, denoiser: Denoiser, feeds: Sequence[Feed] = ()
) -> None:
    """feeds: that the decoder's ranges in 8 bits are measured on; none: it is not quantized."""
    height, width = autoencoder.config.height, autoencoder.config.width
    config = denoiser.config
    frames = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    latents = torch.zeros((2, config.num_tokens, config.channels))
    phases = torch.zeros((2, config.head_width // 2))
    cache = torch.zeros(
        (2, config.num_heads, config.context * config.num_tokens, config.head_width)
    )
    levels = torch.full((2,), 0.5)
    layers = range(len(config.cached_layers))
    step_inputs = (
        latents,
        levels,
        levels.clone(),
        torch.zeros((2, config.action_width)),
        phases,
        phases.clone(),
    )
    step_inputs += tuple(cache.clone() for _ in range(2 * len(layers)))
    names = ["noisy", "signal", "step_size", "action", "phase_cos", "phase_sin"]
    cache_names = [f"{kind}.{i}" for kind in ("cache_k", "cache_v") for i in layers]
    new_names = [f"{kind}.{i}" for kind in ("new_k", "new_v") for i in layers]
    _write_graph(path, "encoder", _Encode(autoencoder), (frames,), ["frames"], ["latents"])
    painted: dict[str, Tensor] = {"latents": latents}
    if autoencoder.config.attributes:
        painted["attributes"] = autoencoder.painter.usual.repeat(2, 1)
    if autoencoder.config.refiner:
        painted |= {"before": frames.clone(), "turn": torch.zeros(2, 3)}
    paint, given = _Decode(autoencoder, list(painted)), tuple(painted.values())
    _write_graph(path, "decoder", paint, given, list(painted), ["frames"], feeds)
    _write_graph(
        path, "denoiser", _Step(denoiser), step_inputs, names + cache_names, ["clean", *new_names]
    )


def _write_graph(
    path: Path,
    name: str,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: list[str],
    output_names: list[str],
    feeds: Sequence[Feed] = (),
) -> None:
    import onnx

    # The exporter tells everybody that torchvision, which nothing here needs, is not there.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    batch = torch.export.Dim("b", min=1, max=1024)
    shapes: Any = ({0: batch},) * len(inputs)
    if isinstance(module, _Decode):
        shapes = (shapes,)
    if isinstance(module, _Step):  # prefill begins with an empty cache that grows frame by frame
        past = torch.export.Dim("m", min=0, max=1 << 20)
        shapes = (tuple({0: batch} if i < 6 else {0: batch, 2: past} for i in range(len(inputs))),)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about its own insides
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            verbose=False,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            opset_version=18,
            optimize=False,  # it would fold transposed copies of the weights into the graph
        )
    assert program is not None
    model = program.model_proto
    if isinstance(module, _Decode) and feeds:
        model = quantize_decoder(model, feeds, module.autoencoder.finest)
    _share_weights(model, path / WEIGHTS)
    onnx.save(model, path / f"{name}.onnx")


def _share_weights(model: Any, weights: Path) -> None:
    """Point every initializer that is a network weight into the safetensors file, with a cast to
    float32 behind it.
    """
    import onnx
    from onnx import TensorProto, helper

    places = _tensor_places(weights)
    casts = []
    for tensor in model.graph.initializer:
        place = places.get(tensor.name)
        if place is None or tensor.data_type != TensorProto.FLOAT:
            continue
        offset, length = place
        if length != 2 * int(np.prod(tensor.dims)):
            raise ReverieError(f"{tensor.name} has another size in {weights.name}; export again")
        used, stored = tensor.name, f"{tensor.name}.fp16"
        dims = list(tensor.dims)
        tensor.Clear()
        tensor.name, tensor.data_type = stored, TensorProto.FLOAT16
        tensor.dims.extend(dims)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", offset), ("length", length)):
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        casts.append(helper.make_node("Cast", [stored], [used], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for node in model.graph.node:  # the exporter's notes name files of the machine it ran on
        del node.metadata_props[:]
        node.doc_string = ""


def _tensor_places(weights: Path) -> dict[str, tuple[int, int]]:
    """Offset and length in bytes of every tensor of a safetensors file."""
    with weights.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: (
            8 + size + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
    }


def write_random_world(
    path: Path, seed: int = 0, *, small: bool = True, prompts: bool = True
) -> World:
    """A world with random weights: for tests and for measuring speed. Its pictures mean nothing.
    prompts: whether it takes any.
    """
    from reverie.model.autoencoder import AutoencoderConfig
    from reverie.model.denoiser import DenoiserConfig

    torch.manual_seed(seed)
    keys = ("forward", "back", "left", "right", "jump", "sprint", "break", "use")
    keymap = {
        "w": "forward",
        "s": "back",
        "a": "left",
        "d": "right",
        "space": "jump",
        "mouse0": "break",
        "mouse2": "use",
    }
    attributes = {"weather": ("clear", "rain")} if prompts else {}
    space = ActionSpace(keys, 15.0, 6, keymap, attributes=attributes)
    counts = (2,) if prompts else ()
    if small:
        sizes = ((8, 16, 16, 32), (0, 1, 1, 1), (1, 1, 1, 1))
        pictures = AutoencoderConfig(64, 32, 8, *sizes, attributes=counts, refiner=(8, 8))
        steps = DenoiserConfig(
            pictures.grid, 8, space.told_width, 4, 32, 4, 16, camera_column=len(keys)
        )
    else:
        pictures = AutoencoderConfig(attributes=counts)
        steps = DenoiserConfig(action_width=space.told_width, camera_column=len(keys))
    autoencoder, denoiser = Autoencoder(pictures), Denoiser(steps)
    with torch.no_grad():
        for weight in [*denoiser.parameters(), *autoencoder.parameters()]:
            if not weight.any():  # layers that training starts at zero: nothing would flow
                weight.normal_(std=0.05)
    generator = np.random.default_rng(seed)
    frames = generator.integers(
        0, 255, (steps.context, pictures.height, pictures.width, 3), np.uint8
    )
    actions = np.tile(space.encode(Action()), (steps.context, 1))
    start = Start("noise", "Noise", frames, actions)
    return export_world(path, "random", autoencoder, denoiser, space, starts=[start])
