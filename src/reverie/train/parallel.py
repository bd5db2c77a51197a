"""Data-parallel training: every process takes a share of each batch, and all take the same step.

Start with `torchrun --nproc-per-node N`, which sets the variables read here; a run started without
it is one process. Two processes of one thread train faster on two cores than one process of two.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reverie.core import ReverieError

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first may be rendering, or drawing a sheet."""


def join_processes() -> None:
    """Meet the other processes of this run, once; nothing to do where there is only one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)


def rank() -> int:
    """Of this process, from 0; the first one saves, logs and draws."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """Of this run; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block before the others, with the threads of all: they
    find on disk what it made.
    """
    if num_processes() == 1:
        yield
        return
    if rank() > 0:
        dist.barrier()
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(threads * num_processes())
    yield
    torch.set_num_threads(threads)
    dist.barrier()


def wait_for_all() -> None:
    """End together: one that leaves early takes its connections with it."""
    if num_processes() > 1:
        dist.barrier()


def share_of(batch_size: int) -> slice:
    """The rows of a batch that are this process's. Raises ReverieError where they do not divide."""
    if batch_size % num_processes():
        raise ReverieError(
            f"a batch of {batch_size} does not divide among {num_processes()} processes; "
            f"use a multiple of {num_processes()}"
        )
    return slice(rank(), None, num_processes())


@torch.no_grad()
def share_weights(network: nn.Module) -> None:
    """Every process begins with the weights of the first."""
    if num_processes() > 1:
        for weight in network.state_dict().values():
            first = weight.contiguous()
            dist.broadcast(first, 0)
            weight.copy_(first)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes."""
    if num_processes() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    joined /= num_processes()
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, mean in zip(gradients, joined.split(sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))
