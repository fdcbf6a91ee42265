"""Metrics of explanations that list only the neighbours that were sampled, against graphs made by hand."""

import warnings

import numpy as np
import pytest
import torch
from metric_cases import Network, random_graph
from torch_geometric.data import Data

from skgnnx import Instances, RandomExplainer
from skgnnx.metrics import fidelity_curve, fidelity_minus, fidelity_plus, sparsity

GRAPH = random_graph(np.random.default_rng(3), 15, 40, undirected=True, loops=2)


def sampled(level, conv, mask="edge"):
    X = Instances.from_graphs([GRAPH]) if level == "graph" else Instances.from_nodes(GRAPH, [0, 4, 9])
    explainer = RandomExplainer(Network(level, conv), mask=mask, max_edges=20, output="logits")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Instances must have at most max_edges|Self loops")
        return explainer.explain(X)


def reached(E, i):
    """Edges that can reach a prediction over two messages, by loops."""
    source, target = GRAPH.edge_index.tolist()
    if E.instances.level == "graph":
        return set(range(len(source)))
    near = {int(E.instances.element[i, 0])}
    near |= {s for s, t in zip(source, target) if t in near}
    return {e for e, t in enumerate(target) if t in near}


def probability(E, i, edges):
    graph = Data(x=GRAPH.x, edge_index=GRAPH.edge_index[:, sorted(edges)])
    with torch.no_grad():
        if E.instances.level == "graph":
            output = E.model(graph.x, graph.edge_index, torch.zeros(graph.num_nodes, dtype=torch.long))[0]
        else:
            output = E.model(graph.x, graph.edge_index)[E.instances.element[i, 0]]
    return float(output.softmax(0)[E.targets[i]])


@pytest.mark.parametrize("level", ["node", "graph"])
@pytest.mark.parametrize("conv", ["gcn", "sage"])
def test_what_is_not_listed_goes_where_only_the_explanation_stays(level, conv):
    E = sampled(level, conv)
    assert all(said is not None for said in E.sampled)
    hard = E.at_sparsity(0.6)
    everything = set(range(GRAPH.num_edges))
    loops = {e for e, (s, t) in enumerate(GRAPH.edge_index.T.tolist()) if s == t}
    plus, minus = [], []
    for i in range(len(E)):
        ids, values = hard.entries(i)
        chosen = set(ids[values > 0].tolist())
        whole = probability(E, i, everything)
        plus.append(whole - probability(E, i, everything - chosen))
        minus.append(whole - probability(E, i, everything - (reached(E, i) - chosen - loops)))
    np.testing.assert_allclose(fidelity_plus(hard, reduce=None), plus, atol=1e-6)
    np.testing.assert_allclose(fidelity_minus(hard, reduce=None), minus, atol=1e-6)
    curve = fidelity_curve(E, [0.6])
    np.testing.assert_allclose([curve.plus[0], curve.minus[0]], [np.mean(plus), np.mean(minus)], atol=1e-6)
    assert sparsity(hard) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("removal", ["zero", "induced"])
def test_nodes_that_are_not_listed_go_too(removal):
    E = sampled("node", "sage", mask="node").at_sparsity(0.5)
    whole = [probability(E, i, range(GRAPH.num_edges)) for i in range(len(E))]
    minus = []
    for i, node in enumerate(E.instances.element[:, 0].tolist()):
        ids, values = E.entries(i)
        gone = {v for e in reached(E, i) for v in GRAPH.edge_index[:, e].tolist()} - set(ids[values > 0].tolist())
        x, edge_index = GRAPH.x.clone(), GRAPH.edge_index
        if removal == "zero":
            x[sorted(gone)] = 0
        else:
            out = torch.isin(edge_index, torch.tensor(sorted(gone - {node}))).any(dim=0)
            edge_index = edge_index[:, ~out]
        with torch.no_grad():
            minus.append(whole[i] - float(E.model(x, edge_index)[node].softmax(0)[E.targets[i]]))
    np.testing.assert_allclose(fidelity_minus(E, reduce=None, removal=removal), minus, atol=1e-6)
