"""Writes a whole world with random weights in a few milliseconds: real files, networks of a toy.

8 x 8 pixels, 4 tokens of 6 channels, two cached layers of two heads. The graphs keep the contract
of exported worlds (inputs, outputs, fp16 weights that lie in model.safetensors), and pictures
depend on noise, actions, the past and the frame index, so any of these going astray is seen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from reverie.core import Action, ActionSpace
from reverie.prompts import Prompter
from reverie.world import Start, WorldConfig, save
from tests.fakes import SPACE

SIDE, PATCH, TOKENS, CHANNELS = 8, 4, 4, 6
LAYERS, HEADS, HEAD_WIDTH, WIDTH = 2, 2, 4, 8
FLOAT, HALF, UINT8, INT64 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.UINT8,
    TensorProto.INT64,
)


def write_tiny_world(
    path: Path,
    seed: int = 0,
    context: int = 3,
    num_starts: int = 2,
    space: ActionSpace = SPACE,
) -> Path:
    """A world in the folder `path`, which is made. Same seed, same bytes."""
    generator = np.random.default_rng(seed)
    path.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (generator.standard_normal(shape) * shape[0] ** -0.5).astype(np.float16)
        for name, shape in _weight_shapes(space).items()
    }
    save_file(weights, path / "model.safetensors")
    for name, graph in (
        ("encoder", _encoder()),
        ("decoder", _decoder(space)),
        ("denoiser", _denoiser(context, space)),
    ):
        _write_graph(path, name, *graph)
    config = WorldConfig(
        name="tiny",
        width=SIDE,
        height=SIDE,
        fps=20,
        action_space=space,
        denoising_steps=(1, 2, 4),
        context=context,
        context_signal=0.9,
        noise_scale=1.25,
        denoiser={
            "frequencies": [[0.7, 0.0, 0.0, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 0.25, 0.1]],
            "camera_column": len(space.keys),
            "camera_tokens": 2.0,
            "min_step_size": 0.125,
        },
    )
    if space.attributes:
        Prompter.fit(space.attributes).save(path)
    idle = np.tile(space.encode(Action()), (context, 1))
    starts = []
    for i in range(num_starts):
        frames = generator.integers(0, 256, (context, 2, 2, 3), np.uint8)
        frames = frames.repeat(4, 1).repeat(4, 2)
        starts.append(Start(f"start-{i}", f"Start {i}", frames, idle))
    save(path, config, starts, "# Tiny\n\nRandom weights.\n")
    return path


def _weight_shapes(space: ActionSpace) -> dict[str, tuple[int, ...]]:
    patch = PATCH * PATCH * 3
    shapes: dict[str, tuple[int, ...]] = {
        "autoencoder.encode": (patch, CHANNELS),
        "autoencoder.decode": (CHANNELS, patch),
        "denoiser.embed": (CHANNELS, WIDTH),
        "denoiser.action": (space.told_width, WIDTH),
        "denoiser.levels": (2, WIDTH),
        "denoiser.unembed": (WIDTH, CHANNELS),
    }
    for i in range(LAYERS):
        shapes |= {f"denoiser.{part}.{i}": (WIDTH, WIDTH) for part in "qkvo"}
    if space.attributes:
        shapes["autoencoder.paint"] = (len(space.encode_attributes({})), CHANNELS)
    return shapes


class _Graph:
    """Collects nodes; every call returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.weights: set[str] = set()

    def node(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        name = to or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: list[int] | list[float] | float) -> str:
        array = np.array(values)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def matmul(self, x: str, weight: str) -> str:
        self.weights.add(weight)
        wide = f"{weight}_{len(self.nodes)}"
        self.nodes.append(helper.make_node("Cast", [weight], [wide], to=FLOAT))
        return self.node("MatMul", x, wide)

    def reshape(self, x: str, *shape: int) -> str:
        return self.node("Reshape", x, self.constant(list(shape)))


def _cast(g: _Graph, x: str, kind: int, name: str) -> str:
    g.nodes.append(helper.make_node("Cast", [x], [name], to=kind))
    return name


def _encoder() -> tuple[_Graph, list[Any], list[Any]]:
    g = _Graph()
    grid = SIDE // PATCH
    x = g.node("Div", _cast(g, "frames", FLOAT, "wide"), g.constant(255.0))
    x = g.reshape(x, -1, grid, PATCH, grid, PATCH, 3)
    x = g.node("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    x = g.matmul(g.reshape(x, -1, TOKENS, PATCH * PATCH * 3), "autoencoder.encode")
    ones, zeros = g.constant([1.0] * CHANNELS), g.constant([0.0] * CHANNELS)
    g.node("LayerNormalization", x, ones, zeros, to="latents", axis=-1, epsilon=1e-6)
    frames = helper.make_tensor_value_info("frames", UINT8, ["b", SIDE, SIDE, 3])
    latents = helper.make_tensor_value_info("latents", FLOAT, ["b", TOKENS, CHANNELS])
    return g, [frames], [latents]


def _decoder(space: ActionSpace) -> tuple[_Graph, list[Any], list[Any]]:
    g = _Graph()
    grid = SIDE // PATCH
    x, shapes = "latents", {"latents": ["b", TOKENS, CHANNELS]}
    if space.attributes:
        shapes["attributes"] = ["b", len(space.encode_attributes({}))]
        paint = g.reshape(g.matmul("attributes", "autoencoder.paint"), -1, 1, CHANNELS)
        x = g.node("Add", x, paint)
    inputs = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()]
    x = g.node("Sigmoid", g.matmul(x, "autoencoder.decode"))
    x = g.reshape(x, -1, grid, grid, PATCH, PATCH, 3)
    x = g.reshape(g.node("Transpose", x, perm=[0, 1, 3, 2, 4, 5]), -1, SIDE, SIDE, 3)
    _cast(g, g.node("Round", g.node("Mul", x, g.constant(255.0))), UINT8, "frames")
    frames = helper.make_tensor_value_info("frames", UINT8, ["b", SIDE, SIDE, 3])
    return g, inputs, [frames]


def _denoiser(context: int, space: ActionSpace) -> tuple[_Graph, list[Any], list[Any]]:
    g = _Graph()
    entries = ["b", HEADS, context * TOKENS, HEAD_WIDTH]
    levels = [g.reshape(name, -1, 1) for name in ("signal", "step_size")]
    level = g.matmul(g.node("Concat", *levels, axis=1), "denoiser.levels")
    condition = g.node("Add", level, g.matmul("action", "denoiser.action"))
    x = g.node("Add", g.matmul("noisy", "denoiser.embed"), g.reshape(condition, -1, 1, WIDTH))
    phase = g.reshape(g.node("Sub", "phase_cos", "phase_sin"), -1, 1, 1, HEAD_WIDTH)
    for i in range(LAYERS):
        q, k, v = (
            g.node(
                "Transpose",
                g.reshape(g.matmul(x, f"denoiser.{part}.{i}"), -1, TOKENS, HEADS, HEAD_WIDTH),
                perm=[0, 2, 1, 3],
            )
            for part in "qkv"
        )
        k = g.node("Add", k, phase, to=f"new_k.{i}")
        v = g.node("Identity", v, to=f"new_v.{i}")
        keys = g.node("Concat", f"cache_k.{i}", k, axis=2)
        values = g.node("Concat", f"cache_v.{i}", v, axis=2)
        scores = g.node("MatMul", q, g.node("Transpose", keys, perm=[0, 1, 3, 2]))
        heads = g.node("MatMul", g.node("Softmax", scores, axis=-1), values)
        merged = g.reshape(g.node("Transpose", heads, perm=[0, 2, 1, 3]), -1, TOKENS, WIDTH)
        x = g.node("Add", x, g.node("Tanh", g.matmul(merged, f"denoiser.o.{i}")))
    g.node("Identity", g.matmul(x, "denoiser.unembed"), to="clean")
    latents, new = ["b", TOKENS, CHANNELS], ["b", HEADS, TOKENS, HEAD_WIDTH]
    shapes: dict[str, list[Any]] = {"noisy": latents, "signal": ["b"], "step_size": ["b"]}
    shapes |= {"action": ["b", space.told_width]}
    shapes |= {"phase_cos": ["b", HEAD_WIDTH], "phase_sin": ["b", HEAD_WIDTH]}
    shapes |= {f"cache_{part}.{i}": entries for part in "kv" for i in range(LAYERS)}
    made = {f"new_{part}.{i}": new for part in "kv" for i in range(LAYERS)}
    inputs = [helper.make_tensor_value_info(name, FLOAT, s) for name, s in shapes.items()]
    outputs = [
        helper.make_tensor_value_info(name, FLOAT, s)
        for name, s in ({"clean": latents} | made).items()
    ]
    return g, inputs, outputs


def _write_graph(path: Path, name: str, g: _Graph, inputs: list[Any], outputs: list[Any]) -> None:
    """The graph as a file whose weights are ranges of model.safetensors."""
    raw = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    initializers = list(g.constants)
    for weight in sorted(g.weights):
        first, last = header[weight]["data_offsets"]
        tensor = TensorProto(
            name=weight,
            data_type=HALF,
            dims=header[weight]["shape"],
            data_location=TensorProto.EXTERNAL,
        )
        place = {
            "location": "model.safetensors",
            "offset": 8 + size + first,
            "length": last - first,
        }
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        initializers.append(tensor)
    graph = helper.make_graph(g.nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (path / f"{name}.onnx").write_bytes(model.SerializeToString())
