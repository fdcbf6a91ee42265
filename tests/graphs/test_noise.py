"""Noise per instance against SplitMix64 in Python's whole numbers, and what it may depend on."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch_geometric.data import Data

from skgnnx import Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields, whole_graphs
from skgnnx.testing import strategies

FULL = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(key):
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9 & FULL
    key = (key ^ (key >> 27)) * 0x94D049BB133111EB & FULL
    return key ^ (key >> 31)


def of_row(values):
    raw = np.ascontiguousarray(values).tobytes()
    width = next(width for width in (8, 4, 2, 1) if len(raw) % width == 0)
    words = [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]
    return sum(word * (mixed(GOLDEN * column & FULL) | 1) for column, word in enumerate(words, start=1)) & FULL


def naive(graph, target, random_state, count, columns):
    """Noise of the edges of one whole graph with x and edge_attr."""
    digest = mixed(of_row(np.array([graph.num_nodes, graph.num_edges])))
    for rows in (graph.edge_index.T.numpy(), graph.x.numpy(), graph.edge_attr.numpy()):
        total = sum(mixed((of_row(row) + i * GOLDEN) & FULL) for i, row in enumerate(rows, start=1))
        digest = mixed((digest * GOLDEN + total) & FULL)
    digest = mixed((digest * GOLDEN + target) & FULL)
    seed = hashlib.blake2b(f"{random_state}|edge".encode(), digest_size=8).digest()
    stream = mixed(digest ^ int.from_bytes(seed, "little"))
    bits = [mixed((stream + i * GOLDEN) & FULL) for i in range(1, count * columns + 1)]
    return np.array([NormalDist().inv_cdf(((b >> 12) + 0.5) / 2**52) for b in bits]).reshape(count, columns)


@given(strategies.graphs(edge_input="edge_attr"), st.integers(0, 3), st.integers(0, 2**40), st.integers(1, 3))
def test_is_split_mix_seeded_by_content(graph, target, random_state, columns):
    X = Instances.from_graphs([graph])
    batch = GraphBatch(X, np.arange(1), whole_graphs(X, np.arange(1)), np.array([target]))
    expected = naive(graph, target, random_state, graph.num_edges, columns)
    np.testing.assert_allclose(batch.noise(random_state, "edge", columns).numpy(), expected, rtol=1e-9, atol=1e-12)


@given(strategies.graphs(), st.integers(0, 2), st.randoms(use_true_random=False))
def test_neither_company_nor_order_nor_the_ring_matter(data, hops, shuffle):
    X = Instances.from_nodes(data, target=list(range(data.num_nodes)))
    order = list(range(len(X)))
    shuffle.shuffle(order)
    rows = np.array(order)

    def drawn(rows, ring, shape):
        batch = GraphBatch(X, rows, receptive_fields(X, rows, hops, ring, False), X.target[rows])
        return [part.tolist() for part in batch.split(batch.noise(5, shape), shape)]

    for shape in ("edge", "node"):
        together, wider = drawn(rows, 0, shape), drawn(rows, 1, shape)
        assert together == wider == [drawn(np.array([row]), 0, shape)[0] for row in rows]


def batch_of(level="node", target=0, **changes):
    edge_index = torch.tensor([[0, 1, 2, 1], [1, 2, 3, 0]])
    given = {"x": torch.eye(4), "edge_attr": torch.arange(8.0).view(4, 2), "edge_weight": torch.ones(4)}
    data = Data(edge_index=edge_index, pos=torch.arange(4.0).view(4, 1), edge_type=torch.tensor([0, 1, 0, 1]), **given)
    for key, (place, value) in changes.items():
        data[key][place] = value
    X = Instances.from_nodes(data, [3]) if level == "node" else Instances.from_graphs([data])
    return GraphBatch(X, np.arange(1), whole_graphs(X, np.arange(1)), None if target is None else np.array([target]))


CHANGES = [
    {"x": ((3, 0), 0.5)},
    {"pos": ((2, 0), 9.0)},
    {"edge_attr": ((1, 1), 0.0)},
    {"edge_weight": (2, 0.5)},
    {"edge_type": (0, 1)},
    {"edge_index": ((0, 3), 2)},
    {"target": 1},
    {"target": None},
    {"level": "graph"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_all_that_an_instance_is_matters(change):
    assert not torch.equal(batch_of(**change).noise(0, "edge"), batch_of().noise(0, "edge"))


def test_seeds_and_shapes_have_streams_of_their_own():
    batch = batch_of()
    draws = [batch.noise(seed, shape, 4).ravel()[:4] for seed in (0, 1, -1, 2**70) for shape in ("edge", "node")]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_is_standard_normal_and_uncorrelated():
    graphs = [
        Data(x=torch.full((50, 1), float(i)), edge_index=torch.zeros(2, 0, dtype=torch.int64)) for i in range(200)
    ]
    X = Instances.from_graphs(graphs)
    batch = GraphBatch(X, np.arange(200), whole_graphs(X, np.arange(200)))
    noise = batch.noise(0, "node", 10).numpy().reshape(200, 500)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for first, second in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:]), (noise[:, :-10], noise[:, 10:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(noise.size)
    assert len(np.unique(noise)) == noise.size
