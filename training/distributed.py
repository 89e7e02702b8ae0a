"""Several processes as one: `torchrun --nproc-per-node N -m training train ...` trains as a single process would.

Each process draws its share of every batch. DistributedDataParallel averages their gradients; so that the average is
the gradient of the whole batch, means are taken over the pictures of all processes (`share`), and batch norm uses the
statistics of all of them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


def world_size() -> int:
    """Number of processes that train together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Joins the group that torchrun's variables name, over gloo (CPU) or NCCL (CUDA); nothing without them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(count: int, device: torch.device) -> float:
    """What a mean over `count` own pictures must be multiplied by to be averaged over the processes.

    A process with few of the pictures that count must weigh less: `count` times the number of processes, over the
    pictures of all. 1 in a single process; 0 where no process has any.
    """
    if not dist.is_initialized():
        return 1.0
    total = torch.tensor(float(count), device=device)
    dist.all_reduce(total)
    return count * world_size() / float(total) if total > 0 else 0.0


def _summed(values: Tensor) -> Tensor:
    """`values` added over the processes; gradients pass."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]  # torch leaves it without annotations
    return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device (torch's SyncBatchNorm refuses the CPU).

    Every process must bring the same number of values, which `Sampler` sees to.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            count = values.numel() // values.shape[1] * world_size()
            # the mean first: a mean of squares less a squared mean would lose half of the digits
            mean = _summed(values.sum((0, 2, 3))) / count
            centred = values - mean[:, None, None]
            variance = _summed(centred.square().sum((0, 2, 3))) / count
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
            gain = self.weight * torch.rsqrt(variance + self.eps)
            return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def share_batch_norm(module: nn.Module) -> None:
    """Lets every batch norm below `module` count the pictures of all processes; weights and names stay."""
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SharedBatchNorm2d
