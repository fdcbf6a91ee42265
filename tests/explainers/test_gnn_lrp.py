"""What walks, sums over them and the largest of them must be, whatever the network and the graph."""

from collections import defaultdict
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from walk_networks import (
    GRAPHS,
    JUMPING,
    KINDS,
    WIRINGS,
    Chain,
    all_graphs,
    as_dict,
    chain,
    every_walk,
    graph,
)

from skgnnx import GNNLRP, LRP, Instances

pytestmark = pytest.mark.filterwarnings("ignore:Self loops cannot be explained")
X = all_graphs()
RULES = ({}, {"rule": "zero"}, {"rule": "zplus"}, {"rule": "epsilon", "head": "same"}, {"gamma": 0.5, "head": "same"})


def cases():
    """Every layer in every wiring, the other choices changing from one to the next."""
    for number, (conv, wiring) in enumerate(product(KINDS, WIRINGS)):
        options = {
            "wiring": wiring,
            "pool": ["mean", "add", "max"][number % 3],
            "hidden": number % 2 == 1,
            "lift": [None, None, "linear"][number % 3],
            "bias": number % 4 != 3,
        }
        rule = RULES[(number + number // 5) % 5]
        yield pytest.param(conv, options, rule, id=f"{conv}, {wiring}, {rule or 'gamma'}")


def close(found, expected, scale=1.0):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * max(1, scale))


def total(walks, *, starting=None, inside=None):
    """Sum over walks that start at a node, or that stay inside a set of nodes."""
    return sum(
        score
        for walk, score in walks.items()
        if (starting is None or walk[0] == starting) and (inside is None or set(walk) <= set(inside))
    )


@pytest.mark.parametrize(("conv", "options", "rule"), list(cases()))
def test_walks_sum_to_all_that_is_asked(conv, options, rule):
    """The score without biases, subsets, the nodes of LRP, and gates on nodes and on edges."""
    model = chain(conv, 2, **options)
    E, nodes = every_walk(model, X, **rule), GNNLRP(model, mask="node", **rule).explain(X)
    by_lrp = LRP(model, **rule).explain(X)
    counts = [instance.graph.num_nodes for instance in X]
    half = E.subgraph_relevance([np.arange(n) < (n + 1) // 2 for n in counts])
    for i, n in enumerate(counts):
        walks = as_dict(E, i)
        size = sum(map(abs, walks.values()))
        assert size > 0.01 or i != 0
        close(total(walks), E.score[i] - E.bias_share[i], size)
        close(half[i], [total(walks, inside=range((n + 1) // 2))], size)
        starts = [total(walks, starting=node) for node in range(n)]
        close(nodes.layer_nodes[i][0], starts, size)
        np.testing.assert_allclose(nodes[i], starts, rtol=1e-5, atol=1e-6 * max(size, 1))
        np.testing.assert_allclose(by_lrp[i], starts, rtol=1e-5, atol=1e-6 * max(size, 1))
        for boundary in range(3):
            passing = [sum(s for walk, s in walks.items() if walk[boundary] == node) for node in range(n)]
            close(nodes.layer_nodes[i][boundary], passing, size)
        if conv not in JUMPING and conv != "cheb":
            check_edges(E, i, walks, size)


def check_edges(E, i, walks, size):
    """Assert that edges get what walks get that take them; several edges between two nodes carry a step together."""
    source, target = X[i].graph.edge_index.numpy()
    for layer, values in enumerate(E.layer_masks[i]):
        by_edges, by_steps = defaultdict(float), defaultdict(float)
        for m, n, value in zip(source, target, values, strict=True):
            by_edges[int(m), int(n)] += value
        for walk, score in walks.items():
            by_steps[walk[layer], walk[layer + 1]] += score
        # a step from a node to itself is carried by loops, and by what a layer adds of a node's own state
        for pair in set(by_edges) | set(by_steps):
            if pair[0] != pair[1]:
                close(by_edges[pair], by_steps[pair], size)
    np.testing.assert_allclose(E[i], E.layer_masks[i].sum(0) * E.explained[i], rtol=1e-5, atol=1e-6 * max(size, 1))


@pytest.mark.parametrize("conv", ["gcn without loops", "gat", "sage", "graph"])
def test_edges_count_walks_as_often_as_they_take_them(conv):
    """In a graph whose edges are alone between their nodes, so that the layers add up to a count."""
    data = graph("directed")
    E = every_walk(chain(conv, 3), Instances.from_graphs([data], target=0))
    expected = [
        sum(score * list(pairwise(walk)).count(edge) for walk, score in as_dict(E).items())
        for edge in map(tuple, data.edge_index.T.tolist())
    ]
    np.testing.assert_allclose(E[0], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("conv", ["sg", "cheb", "gcn without loops"])
def test_layers_have_what_gates_on_their_messages_have(conv):
    """By hand: factors of 1 on the messages of one propagate call, of a network without biases."""
    data, model = graph("random", seed=5), chain(conv, 2, bias=False)
    E = GNNLRP(model, rule="zero").explain(Instances.from_graphs([data], target=1))
    gates = []

    def gated(layer, inputs, output):
        gates.append(torch.ones(output.shape[-2], 1, dtype=output.dtype, requires_grad=True))
        return output * gates[-1]

    handles = [layer.register_message_forward_hook(gated) for layer in model.convs]
    score = model(data.x, data.edge_index)[0, 1]
    slopes = torch.autograd.grad(score, gates)
    [handle.remove() for handle in handles]
    edges = data.edge_index.shape[1]  # loops that a layer makes come last
    close(E.layer_masks[0], np.stack([slope[:edges, 0].numpy() for slope in slopes]))


def sets(n):
    return [np.array([bool(code >> node & 1) for node in range(n)]) for code in range(2**n)]


@pytest.mark.parametrize("rule", RULES)
def test_subsets_of_every_size(rule):
    model = chain("gin", 2, lift="linear", hidden=True)
    E = every_walk(model, X, **rule)
    everything = E.subgraph_relevance([np.stack(sets(instance.graph.num_nodes)) for instance in X])
    for i, instance in enumerate(X):
        walks = as_dict(E, i)
        subsets = sets(instance.graph.num_nodes)
        expected = [total(walks, inside=np.flatnonzero(subset)) for subset in subsets]
        size = sum(map(abs, walks.values()))
        close(everything[i], expected, size)
        assert everything[i][0] == 0
        close(everything[i][-1], E.score[i] - E.bias_share[i], size)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_walks_that_leave_a_subset_count_by_alpha(alpha):
    E = every_walk(chain("gcn", 3), X[:3])
    subsets = [[0, 1], [2], [0, 1, 2, 3]]
    found = E.subgraph_relevance(subsets, alpha=alpha)
    for i, subset in enumerate(subsets):
        expected = sum(
            score * alpha ** sum(node not in subset for node in walk)
            for walk, score in as_dict(E, i).items()
            if set(walk) & set(subset)
        )
        close(found[i], [expected])


def test_what_two_subsets_have_together_is_the_walks_that_need_both():
    E = every_walk(chain("gat", 2), X[[0]])
    one, other = [0, 1], [2, 4]
    (both,), (first,), (second,) = (E.subgraph_relevance([nodes])[0] for nodes in (one + other, one, other))
    expected = sum(
        score
        for walk, score in as_dict(E).items()
        if set(walk) <= {*one, *other} and set(walk) & set(one) and set(walk) & set(other)
    )
    assert abs(expected) > 1e-4
    close(both - first - second, expected)


def test_subsets_grow_where_no_walk_is_negative():
    model, data = chain("graph", 2), graph(n=5)
    data.x = data.x.abs()
    with torch.no_grad():
        model.head.weight.abs_()
    E = every_walk(model, Instances.from_graphs([data], target=0), rule="zplus", head="same")
    assert (E.walk_scores[0] >= 0).all()
    assert E.walk_scores[0].max() > 0
    subsets = sets(5)
    found = E.subgraph_relevance([np.stack(subsets)])[0]
    for a, b in product(range(32), repeat=2):
        if a & b == a:
            assert found[b] >= found[a]


def test_subsets_are_ids_or_bools_and_say_where_they_are_wrong():
    E = GNNLRP(chain("gin", 2)).explain(X[[0, 1]])
    as_ids = E.subgraph_relevance([{0, 2}, range(3)])
    as_bools = E.subgraph_relevance([np.isin(np.arange(5), [0, 2]), np.arange(5) < 3])
    np.testing.assert_array_equal(as_ids, as_bools)
    assert [len(part) for part in E.subgraph_relevance([np.zeros((3, 5), bool), []])] == [3, 1]
    for nodes, alpha, message in (
        ([[0]], 0.0, "one entry per instance. Got 1 for 2"),
        ([[0], [5]], 0.0, "in .0, 5. or bools at index 1"),
        ([[0], [0.5]], 0.0, "node ids .* at index 1"),
        ([np.zeros(4, bool), [0]], 0.0, "bools of shape .5,. .* at index 0"),
        ([[0], [0]], 1.5, "'alpha' must be"),
    ):
        with pytest.raises(ValueError, match=message):
            E.subgraph_relevance(nodes, alpha)


@pytest.mark.parametrize("rank_by", ["abs", "positive"])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_largest_walks_are_the_first_of_all(rank_by, k):
    for conv, depth in (("gcn", 3), ("gin", 2)):
        model = chain(conv, depth, width=8, hidden=True)
        everything = every_walk(model, X, rank_by=rank_by)
        E = GNNLRP(model, walks=k, rank_by=rank_by).explain(X)
        for i in range(len(X)):
            assert E.walks_exact[i]
            scores = everything.walk_scores[i]
            wanted = scores[scores > 0] if rank_by == "positive" else scores[scores != 0]
            close(E.walk_scores[i], wanted[:k])
            reference = as_dict(everything, i)
            for walk, score in as_dict(E, i).items():
                close(score, reference[walk])
            sizes = np.abs(E.walk_scores[i])
            assert (np.diff(sizes) <= 1e-5 * sizes[:-1]).all()
            others = [abs(s) if rank_by == "abs" else s for w, s in reference.items() if w not in as_dict(E, i)]
            assert max(others, default=0) <= E.walks_bound[i] * (1 + 1e-9)


def test_scores_of_the_largest_are_found_again_by_subsets():
    """A walk over distinct nodes is what is left of the set of its nodes, taken apart by inclusion and exclusion."""
    model = chain("gcn without loops", 1)
    E = GNNLRP(model, walks=3).explain(X[[0]])
    for (m, n), score in as_dict(E).items():
        both, first, second = (E.subgraph_relevance([part])[0][0] for part in ([m, n], [m], [n]))
        back = as_dict(every_walk(model, X[[0]])).get((n, m), 0)
        close(both - first - second, score + back)


def test_more_walks_than_there_are():
    model = chain("sage", 2)
    E, everything = GNNLRP(model, walks=10_000).explain(X), every_walk(model, X)
    for i in range(len(X)):
        assert E.walks_exact[i]
        assert E.walks_bound[i] == 0
        listed = {walk: score for walk, score in as_dict(everything, i).items() if score != 0}
        assert as_dict(E, i).keys() == listed.keys()


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_the_order_does_not_change_with_the_size_of_scores(factor):
    model, scaled = chain("gin", 2), chain("gin", 2)
    with torch.no_grad():
        scaled.head.weight.mul_(factor)
        scaled.head.bias.mul_(factor)
    E, other = (GNNLRP(one, walks=20).explain(X) for one in (model, scaled))
    for i in range(len(X)):
        np.testing.assert_array_equal(E.walks[i], other.walks[i])
        np.testing.assert_allclose(other.walk_scores[i], factor * E.walk_scores[i], rtol=1e-9)


def test_a_search_that_is_stopped_says_so_and_how_large_the_others_may_be():
    model, one = chain("gin", 3, width=8), X[[0]]
    everything = as_dict(every_walk(model, one))
    stopped = 0
    for most in (1, 5, 20, 100, 10_000):
        E = GNNLRP(model, walks=30, max_expansions=most).explain(one)
        listed = as_dict(E)
        others = max(abs(score) for walk, score in everything.items() if walk not in listed)
        assert others <= E.walks_bound[0] * (1 + 1e-9)
        assert all(abs(score - everything[walk]) < 1e-12 for walk, score in listed.items())
        exact = sorted(map(abs, everything.values()), reverse=True)[: len(listed)]
        np.testing.assert_allclose(sorted(map(abs, listed.values()), reverse=True), exact)
        assert E.walks_exact[0] == (len(listed) == 30)
        stopped += not E.walks_exact[0]
    assert 2 <= stopped <= 4


def test_too_many_walks_are_an_error_that_names_the_instance():
    model = chain("gin", 2)
    with pytest.raises(ValueError, match="#walks = .* exceeds max_walks = 8 at index 0; ask for the largest ones"):
        every_walk(model, X, max_walks=8)
    E = every_walk(model, X, max_walks=8, on_error="nan")
    assert [GRAPHS[i] for i in np.flatnonzero(E.ok)] == ["empty", "one"]
    assert len(every_walk(model, X[[5]], max_walks=5).walks[0]) == 5
    with pytest.raises(ValueError, match="#walks = 5 exceeds max_walks = 4 at index 0"):
        every_walk(model, X[[5]], max_walks=4)


def test_a_class_that_nothing_reaches_has_no_walks():
    model = chain("gcn", 2)
    with torch.no_grad():
        model.head.weight[1] = 0
    for walks in ("all", 4):
        E = GNNLRP(model, walks=walks).explain(X)
        assert all(part.shape == (0, 3) for part in E.walks)
        assert E.walks_exact == [True] * len(X)
    assert all(part == 0 for part in E.subgraph_relevance([[0]] * len(X)))


class Classes(Chain):
    """Walks end where a prediction is read."""

    def __init__(self, level):
        super().__init__("sage", 2, level=level)


def test_walks_of_nodes_and_links_end_there():
    data = graph(n=7, seed=2)
    for level, parts in (
        ("node", Instances.from_nodes(data, nodes=[1, 4], target=1)),
        ("edge", Instances.from_edges(data, [[0, 5], [3, 1]], target=1)),
    ):
        torch.manual_seed(0)
        model = Classes(level).double().eval()
        E = every_walk(model, parts)
        everything = E.subgraph_relevance([range(7)] * 2)
        for i, instance in enumerate(parts):
            ends = np.atleast_1d(instance.element)
            assert set(E.walks[i][:, -1]) == set(ends.tolist())
            close(E.walk_scores[i].sum(), E.score[i] - E.bias_share[i])
            close(everything[i], [E.walk_scores[i].sum()])


def test_regression_has_walks():
    model = chain("gin", 2, classes=1)
    E = every_walk(model, all_graphs(None), output="regression")
    for i, instance in enumerate(X):
        close(E.score[i], model(instance.graph.x, instance.graph.edge_index)[0, 0].detach())
        close(E.walk_scores[i].sum(), E.score[i] - E.bias_share[i])


def test_relabelled_nodes_have_the_same_walks():
    data, order = graph(n=6, seed=4), np.array([3, 0, 5, 1, 4, 2])  # node i is now called order[i]
    moved = Data(x=data.x[np.argsort(order)], edge_index=torch.from_numpy(order)[data.edge_index])
    model = chain("gat", 2)
    E, other = (every_walk(model, Instances.from_graphs([one], target=0)) for one in (data, moved))
    expected = {tuple(order[list(walk)].tolist()): score for walk, score in as_dict(E).items()}
    found = as_dict(other)
    assert found.keys() == expected.keys()
    for walk, score in expected.items():
        close(found[walk], score)
