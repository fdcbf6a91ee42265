"""The graphs, networks and predictions that checks are run on: awkward ones of every kind, and their promises kept."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from skgnnx.testing import check_explainer, example, gnns, graphs, instances
from skgnnx.testing.drawing import Seeded, draw_graph, draw_instances, draw_network
from skgnnx.testing.networks import CONVS, POOLS, Network
from skgnnx.testing.running import plain_outputs

LEVELS = ["graph", "node", "edge"]


def kinds_of(data: Data) -> set[str]:
    """What is awkward about a graph."""
    source, target = data.edge_index.tolist()
    pairs = list(zip(source, target, strict=True))
    loops = [k for k, (s, t) in enumerate(pairs) if s == t]
    links = [pair for pair in pairs if pair[0] != pair[1]]
    undirected = sorted(links) == sorted((t, s) for s, t in links)
    found = {"undirected" if undirected else "directed"}
    found |= {"one node"} if data.num_nodes == 1 else set()
    found |= {"no edges"} if not pairs else set()
    found |= {"isolated node"} if len(set(source + target)) < data.num_nodes else set()
    found |= {"repeated edge"} if len(set(links)) < len(links) else set()
    if loops and links:
        found.add({0: "loop first", len(pairs) - 1: "loop last"}.get(loops[0], "loop in the middle"))
    if not data.x.any():
        found.add("zero features")
    elif (data.x == data.x[0, 0]).all():
        found.add("constant features")
    elif (data.x.sum(dim=1) == 1).all() and set(data.x.unique().tolist()) <= {0.0, 1.0}:
        found.add("one-hot features")
    elif (data.x == data.x.round()).all():
        found.add("whole features")
    return found


def test_every_awkward_kind_of_graph_is_drawn():
    found = set()
    for seed in range(100):
        found |= kinds_of(draw_graph(Seeded(seed)))
    places = {"loop first", "loop in the middle", "loop last"}
    features = {"zero features", "constant features", "one-hot features", "whole features"}
    edges = {"directed", "undirected", "no edges", "repeated edge", "isolated node", "one node"}
    assert found == places | features | edges


@given(graphs(min_nodes=2, max_nodes=4, num_features=5, edge_input="edge_attr", dtype=torch.float64))
def test_graphs_keep_to_what_was_asked_for(data):
    assert 2 <= data.num_nodes <= 4
    assert data.x.shape == (data.num_nodes, 5)
    assert data.x.dtype == data.edge_attr.dtype == torch.float64
    assert len(data.edge_attr) == data.num_edges
    data.validate(raise_on_error=True)


@given(graphs(categories=True, edge_input="edge_type"))
def test_categories_and_relations_are_whole_numbers(data):
    assert data.x.dtype == data.edge_type.dtype == torch.int64


def test_every_kind_of_network_is_drawn():
    drawn = [draw_network(Seeded(seed), "graph") for seed in range(200)]
    assert {model.conv for model in drawn} == set(CONVS)
    assert {model.pool for model in drawn} == set(POOLS)
    for what in (
        lambda model: model.norm is None,
        lambda model: model.relu is None,
        lambda model: model.log_softmax,
        lambda model: model.categories,
        lambda model: model.training,
        lambda model: model.head.weight.dtype == torch.float64,
    ):
        assert {bool(what(model)) for model in drawn} == {True, False}


@given(gnns("node", convs=["gat", "gin"], num_features=4))
def test_networks_keep_to_what_was_asked_for(model):
    assert model.conv in ("gat", "gin")
    assert model.level == "node"
    assert model.num_features == 4


@given(st.sampled_from(LEVELS).flatmap(lambda level: instances(level, max_size=3)))
def test_networks_can_be_asked_about_their_instances(case):
    model, X = case
    assert 1 <= len(X) <= 3
    assert X.level == model.level
    output = plain_outputs(model, X)
    assert output.shape == (len(X), model.num_classes)
    assert output.isfinite().all()
    if model.log_softmax:
        torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(len(X), dtype=output.dtype))


def test_what_is_drawn_depends_on_the_seed_only():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    (first, X), (second, Z) = (draw_instances(Seeded(5), "node") for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert np.array_equal(X.store.edge_index, Z.store.edge_index)
    assert torch.equal(plain_outputs(first, X), plain_outputs(second, Z))


@pytest.mark.parametrize("conv", CONVS)
def test_an_edge_matters_to_a_network(conv):
    """Or no check about edges could fail."""
    data = draw_graph(Seeded(12), min_nodes=5, edge_input=Network(conv).edge_input)
    assert data.num_edges > 2
    model = Network(conv).eval()
    rest = data.clone()
    rest.edge_index = data.edge_index[:, :0]
    if model.edge_input:
        rest[model.edge_input] = data[model.edge_input][:0]
    given = [{key: g[key] for key in g.keys() if key != "num_nodes"} for g in (data, rest)]  # noqa: SIM118 - no dict
    batch = torch.zeros(data.num_nodes, dtype=torch.long)
    with torch.no_grad():
        assert (model(**given[0], batch=batch) - model(**given[1], batch=batch)).abs().max() > 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_example_is_the_same_every_time(level):
    torch.manual_seed(1)
    model, X = example(level)
    again, Z = example(level)
    assert X.level == level
    assert len(X) == 5
    given = {"edge_label_index": torch.tensor([[0], [1]])} if level == "edge" else {}
    first, second = X[0].graph, Z[0].graph
    assert torch.equal(model(first.x, first.edge_index, **given), again(second.x, second.edge_index, **given))


def test_example_of_another_level_is_refused():
    with pytest.raises(ValueError, match="'level' of example must be 'graph', 'node' or 'edge'. Got 'link'"):
        example("link")


@pytest.mark.parametrize("use", [graphs, gnns, instances, lambda: check_explainer(None)])
def test_without_hypothesis_the_extra_is_named(monkeypatch, use):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(
        ImportError, match=r"Checks need hypothesis, which is not installed: pip install 'skgnnx\[test\]'"
    ):
        use()


def test_importing_needs_no_extra():
    extras = ["hypothesis", "pytest", "matplotlib", "rdkit", "pandas"]
    hidden = "".join(f"sys.modules[{name!r}] = None;" for name in extras)
    code = f"import sys;{hidden}import skgnnx.testing as t;t.all_explainers();print(len(t.example('edge')[1]))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("5", 0), done.stderr
