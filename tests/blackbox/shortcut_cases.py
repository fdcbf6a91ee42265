"""Networks with and without their shortcuts, side by side."""

from contextlib import contextmanager

import torch
from torch import nn

from skgnnx.blackbox.trimming import Trim


class Weighted(nn.Module):
    """Layers called as ``layer(x, edge_index, *edge values)``."""

    def __init__(self, *layers, pool=None):
        super().__init__()
        self.layers, self.pool = nn.ModuleList(layers), pool

    def forward(self, x, edge_index, edge_attr, batch=None):
        for number, layer in enumerate(self.layers):
            x = layer(torch.tanh(x) if number else x, edge_index, edge_attr)
        return x if self.pool is None else self.pool(x, batch)


@contextmanager
def general(gnn):
    """Let the opened model run without anything fused, trimmed or kept; batches have to be made inside."""
    setup = gnn.setup
    kept = setup.fusions, setup.foldable
    setup.fusions, setup.foldable = [], []
    try:
        yield
    finally:
        setup.fusions, setup.foldable = kept


def results(gnn, batch, mask, *, by_x=True):
    """Output under a mask, and its gradients by the mask and, where they are no whole numbers, by the features."""
    mask = mask.clone().requires_grad_()
    x = batch.x.detach().clone().requires_grad_(by_x)
    output = gnn.forward(batch, x=x if by_x else None, edge_mask=mask)
    weights = torch.cos(torch.arange(output.numel(), dtype=output.dtype)).view_as(output)
    inputs = [mask, x] if by_x else [mask]
    if not output.requires_grad:
        return [output, *map(torch.zeros_like, inputs)]
    gradients = torch.autograd.grad((output * weights).sum(), inputs, allow_unused=True)
    return [output, *(torch.zeros_like(v) if g is None else g for g, v in zip(gradients, inputs, strict=True))]


def random_mask(batch, dtype, seed=0):
    """A number in (0, 1) for each edge, the same in every batch with as many."""
    return torch.rand(batch.num_edges, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def check_shortcuts(gnn, positions=None, *, by_x=True, tolerance=None):
    """Every batch gives what it gives with all of its layers as they are and whole; return the first batch's paths."""
    tolerance = (1e-10 if gnn.dtype == torch.float64 else 2e-6) if tolerance is None else tolerance
    paths = []
    for batch in gnn.batches(positions):
        paths.append(gnn.setup.path(batch))
        mask = random_mask(batch, gnn.dtype)
        fast = results(gnn, batch, mask, by_x=by_x)
        with general(gnn):
            gnn.setup.put(batch, Trim.NONE)
            slow = results(gnn, batch, mask, by_x=by_x)
        for got, expected in zip(fast, slow, strict=True):
            scale = max(1.0, float(expected.detach().abs().max()) if expected.numel() else 1.0)
            torch.testing.assert_close(got, expected, atol=tolerance * scale, rtol=tolerance)
    return paths[0]
