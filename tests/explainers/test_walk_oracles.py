"""Relevance of walks against dense formulas, block by block, and against one pass per walk."""

import importlib
from itertools import product

import numpy as np
import pytest
import torch
from torch_geometric.utils import to_dense_adj
from walk_networks import (
    KINDS,
    WIRINGS,
    Chain,
    all_graphs,
    chain,
    check_walks,
    every_walk,
    graph,
    one_pass_per_walk,
    with_frozen_attention,
)

from skgnnx import Instances

pytestmark = pytest.mark.filterwarnings("ignore:Self loops cannot be explained")


def shares(parts, bias, gamma):
    """What share of a unit's relevance each of its parts gets, by the gamma rule."""
    sign = 1 if parts.sum() + bias > 0 else -1
    weighted = parts + gamma * np.where(parts * sign > 0, parts, 0)
    below = weighted.sum() + bias + gamma * (bias if bias * sign > 0 else 0)
    return weighted / below if below != 0 else 0 * weighted


def array(value):
    return value.detach().numpy()


def adjacency(data):
    """Number of edges to each node (first axis) from each other one."""
    return array(to_dense_adj(data.edge_index, max_num_nodes=data.num_nodes)[0]).T.astype(float)


def through_linear(linear, u, gamma):
    """The output of a Linear (N, c), and the shares (N, k, c) of its inputs."""
    w, b = array(linear.weight).T, array(linear.bias)
    found = [[shares(u[n] * w[:, c], b[c], gamma) for c in range(len(b))] for n in range(len(u))]
    return u @ w + b, np.array(found).transpose(0, 2, 1)


def gcn(conv, h, data, gamma):
    a = adjacency(data)
    np.fill_diagonal(a, np.where(np.diag(a) > 0, np.diag(a), 1))
    root = a.sum(1) ** -0.5
    return one_block([(root[:, None] * a * root, array(conv.lin.weight).T)], array(conv.bias), h, gamma)


def sage(conv, h, data, gamma):
    a = adjacency(data)
    mean = a / np.maximum(a.sum(1, keepdims=True), 1)
    branches = [(mean, array(conv.lin_l.weight).T), (np.eye(len(h)), array(conv.lin_r.weight).T)]
    return one_block(branches, array(conv.lin_l.bias), h, gamma)


def one_block(branches, bias, h, gamma):
    """The output of a layer, and shares (m, k, n, c): of unit (n, c) what each entry (m, k) of the input gets."""
    z = sum(a @ h @ w for a, w in branches) + bias
    blocks = np.zeros((*h.shape, *z.shape))
    for n, c in product(range(z.shape[0]), range(z.shape[1])):
        parts = np.stack([a[n][:, None] * h * w[:, c] for a, w in branches])  # (branches, m, k)
        blocks[:, :, n, c] = shares(parts, bias[c], gamma).sum(0)
    return z, blocks


def gin(conv, h, data, gamma):
    first, _, second = conv.nn
    a = adjacency(data) + np.eye(len(h))
    u = a @ h
    to_sum = np.where(u[None] != 0, (h[:, None] * a.T[:, :, None]) / np.where(u == 0, 1, u), 0)  # (m, n, k)
    z1, inside = through_linear(first, u, gamma)
    z2, outside = through_linear(second, np.maximum(z1, 0), gamma)
    return z2, np.einsum("mnk,nkj,njc->mknc", to_sum, inside, outside)


LAYERS = {"gcn": gcn, "sage": sage, "gin": gin}


def by_blocks(model, data, target, gammas, kind):
    """Relevance of every walk of a chain with a mean pool and one Linear, from dense blocks."""
    h, blocks = array(data.x), []
    for conv, gamma in zip(model.convs, gammas, strict=True):
        z, block = LAYERS[kind](conv, h, data, gamma)
        h = np.maximum(z, 0)
        blocks.append(block)
    last = h * array(model.head.weight)[target] / len(h)
    found = {}
    for walk in product(range(len(h)), repeat=len(blocks) + 1):
        relevance = last[walk[-1]]
        for step in range(len(blocks), 0, -1):
            relevance = blocks[step - 1][walk[step - 1], :, walk[step]] @ relevance
        found[walk] = float(relevance.sum())
    return found


@pytest.mark.parametrize("rule", [{"rule": "zero"}, {}, {"gamma": 0.7}, {"gamma": "each"}])
@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("kind", LAYERS)
def test_walks_are_products_of_blocks(kind, depth, rule):
    model, data = chain(kind, depth, width=4), graph("loops" if kind == "gcn" else "random", n=4)
    gammas = {2: [3.0, 0.0], 3: [3.0, 1.5, 0.0]}[depth]
    if rule.get("gamma") == "each":
        gammas = [0.3, 2.0, 1.0][:depth]
        rule = {"gamma": np.array(gammas)}
    elif rule:
        gammas = [rule.get("gamma", 0.0)] * depth
    E = every_walk(model, Instances.from_graphs([data], target=1), **rule)
    expected = by_blocks(model, data, 1, gammas, kind)
    check_walks(E, 0, expected)
    np.testing.assert_allclose(E.score[0], float(model(data.x, data.edge_index)[0, 1].detach()), rtol=1e-12)
    np.testing.assert_allclose(sum(expected.values()), E.score[0] - E.bias_share[0], rtol=1e-9)


def test_gamma_is_a_number_a_list_or_an_array():
    model, X = chain("gin", 2), Instances.from_graphs([graph()], target=1)
    listed, array, one = (every_walk(model, X, gamma=gamma) for gamma in ([0.5, 0.5], np.full(2, 0.5), 0.5))
    for other in (array, one):
        np.testing.assert_array_equal(listed.walk_scores[0], other.walk_scores[0])
    with pytest.raises(ValueError, match="each of the 2 graph convolutions"):
        every_walk(model, X, gamma=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_walks_are_what_one_pass_for_each_finds(kind, wiring):
    """Gradients times inputs, that pass one node per layer, of a network with attention as it is for this graph."""
    number = list(KINDS).index(kind) + WIRINGS.index(wiring)
    options = {"pool": ["mean", "add", "max"][number % 3], "hidden": number % 2 == 1, "wiring": wiring}
    data = graph(["random", "loops", "parallel", "directed"][number % 4], n=4, seed=number)
    model = chain(kind, 2, **options)
    E = every_walk(model, Instances.from_graphs([data], target=2), rule="zero")
    check_walks(E, 0, one_pass_per_walk(with_frozen_attention(model, data), data, 2))


@pytest.mark.parametrize("kind", ["gin", "gat"])
def test_three_layers_deep(kind):
    data, model = graph(n=4, seed=3), chain(kind, 3, wiring="norm first", pool="add")
    E = every_walk(model, Instances.from_graphs([data], target=0), rule="zero")
    check_walks(E, 0, one_pass_per_walk(with_frozen_attention(model, data), data, 0))


@pytest.mark.parametrize("kind", ["graph", "sage max"])
def test_walks_of_a_node_end_there(kind):
    data, model = graph(n=4, seed=1), chain(kind, 2, level="node")
    E = every_walk(model, Instances.from_nodes(data, nodes=[2, 0], target=1), rule="zero")
    for i, node in enumerate([2, 0]):
        assert set(E.walks[i][:, -1]) == {node}
        check_walks(E, i, one_pass_per_walk(model, data, 1, row=node))


def test_walks_start_at_what_an_encoder_reads():
    data, model = graph(n=4), chain("gin", 2, lift="linear")
    E = every_walk(model, Instances.from_graphs([data], target=1), rule="zero")
    check_walks(E, 0, one_pass_per_walk(model, data, 1))


class AfterTable(Chain):
    """A chain that is given what its table would look up."""

    def states(self, x, edge_index, kept=None):
        table, self.lift = self.lift, torch.nn.Identity()
        try:
            return super().states(x, edge_index, kept)
        finally:
            self.lift = table


def test_walks_start_at_what_a_table_has():
    data, model = graph(n=4), chain("graph", 2, lift="table")
    data.x = torch.tensor([[0], [3], [1], [3]])
    E = every_walk(model, Instances.from_graphs([data], target=1), rule="zero")
    after = AfterTable("graph", 2, lift="table").double().eval()
    after.load_state_dict(model.state_dict())
    looked_up = data.clone()
    looked_up.x = model.lift(data.x.view(-1)).detach()
    check_walks(E, 0, one_pass_per_walk(after, looked_up, 1))


def test_odd_graphs_have_their_walks():
    X = all_graphs()
    for kind in ("gcn", "sage"):
        model = chain(kind, 2)
        E = every_walk(model, X, rule="zero")
        for i in range(len(X)):
            check_walks(E, i, one_pass_per_walk(model, X[i].graph, 1))


STEPS, CUTS = (importlib.import_module(f"skgnnx.blackbox.relevance.{name}") for name in ("transitions", "cut_pass"))


@pytest.mark.parametrize("largest", [1, 200, 2000, 2**24])
@pytest.mark.parametrize("asked", ["targets", "sources", "as it pays"])
def test_nodes_are_asked_in_any_way_and_any_portions(asked, largest, monkeypatch):
    """A hub is a source of so many targets that it is asked about itself."""
    leaves = torch.arange(1, 10)
    data = graph(n=10)
    data.edge_index = torch.stack([torch.cat([0 * leaves, leaves]), torch.cat([leaves, 0 * leaves])])
    if asked != "as it pays":
        monkeypatch.setattr(STEPS, "hubs", lambda *given: np.full(10, asked == "sources"))
    for module in (STEPS, CUTS):
        monkeypatch.setattr(module, "LARGEST", largest)
    for kind in ("gin", "gcn"):
        model = chain(kind, 2, width=4)
        E = every_walk(model, Instances.from_graphs([data], target=1), gamma=0.5)
        expected = by_blocks(model, data, 1, [0.5, 0.5], kind)
        check_walks(E, 0, expected)
        inside = [walk for walk in expected if max(walk) < 5]
        np.testing.assert_allclose(E.subgraph_relevance([range(5)])[0], [sum(expected[walk] for walk in inside)])


def test_hubs_are_the_sources_of_most_targets():
    loops, leaves = np.arange(40), np.arange(1, 40)
    source, target = (np.concatenate(parts) for parts in ((loops, 0 * leaves, leaves), (loops, leaves, 0 * leaves)))
    for given in (8, 1):
        assert np.flatnonzero(STEPS.hubs(source, target, 40, 8, given)).tolist() == [0]
    assert not STEPS.hubs(loops, loops, 40, 8, 8).any()
    assert STEPS.hubs(loops, loops, 40, 8, 1).all()


def test_nodes_of_one_colour_have_no_source_in_common():
    random = np.random.default_rng(0)
    for size in (1, 6, 30):
        matrix = random.random((size, size)) < 0.2
        source, target = matrix.nonzero()
        colour = STEPS.colours(source, target, size)
        for c in range(colour.max(initial=-1) + 1):
            assert matrix[:, colour == c].sum(1).max() <= 1
        np.testing.assert_array_equal(colour < 0, ~matrix.any(0))
