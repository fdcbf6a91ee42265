"""The molecules in the package: published counts, and truths found again from the structure alone."""

import networkx as nx
import numpy as np
import pytest

from skgnnx.datasets import load_benzene, load_mutag


@pytest.fixture(scope="module")
def benzene():
    return load_benzene()


@pytest.fixture(scope="module")
def mutag():
    return load_mutag()


def carbon_rings(graph, atoms, bonds):
    """Six-rings of carbon with aromatic bonds only, as sets of atoms."""
    is_aromatic = graph.edge_attr[:, bonds.index("aromatic")].numpy() == 1
    is_carbon = graph.x[:, atoms.index("C")].numpy() == 1
    source, target = graph.edge_index.numpy()
    keep = is_aromatic & is_carbon[source] & is_carbon[target]
    molecule = nx.Graph(zip(source[keep].tolist(), target[keep].tolist()))
    return {frozenset(cycle) for cycle in nx.minimum_cycle_basis(molecule) if len(cycle) == 6}


def test_benzene_counts(benzene):
    assert benzene.data.shape == (1500,)
    assert sum(graph.num_nodes for graph in benzene.graphs) == 30_975
    assert sum(graph.num_edges for graph in benzene.graphs) == 2 * 32_880
    assert np.bincount(benzene.target).tolist() == [750, 750]
    assert sum(map(len, benzene.rings)) == 1014
    assert len(np.unique(benzene.data.ids)) == 1500


def test_benzene_split_is_disjoint_complete_and_balanced(benzene):
    assert np.array_equal(np.union1d(benzene.train_index, benzene.test_index), np.arange(1500))
    assert len(benzene.train_index) == 1200
    assert len(benzene.test_index) == 300
    assert benzene.target[benzene.train_index].mean() == benzene.target[benzene.test_index].mean() == 0.5


def test_rings_are_the_aromatic_carbon_six_rings(benzene):
    for graph, rings, label in zip(benzene.graphs, benzene.rings, benzene.target):
        assert carbon_rings(graph, benzene.atoms, benzene.bonds) == set(map(frozenset, rings.tolist()))
        assert label == (len(rings) > 0)


def test_truth_holds_every_union_of_rings(benzene):
    for i, rings in enumerate(benzene.rings):
        nodes, edges = benzene.data.truth["node"][i], benzene.data.truth["edge"][i]
        if not len(rings):
            assert nodes is None
            assert edges is None
            continue
        assert len({mask.tobytes() for mask in nodes}) == len(nodes) == len(edges) == 2 ** len(rings) - 1
        assert np.array_equal(nodes[-1], benzene.node_truth[i])
        assert np.array_equal(edges[-1], benzene.edge_truth[i])
        assert [mask.sum() for mask in nodes[: len(rings)]] == [6] * len(rings)
        assert [mask.sum() for mask in edges[: len(rings)]] == [12] * len(rings)


def test_bond_between_two_rings_belongs_to_neither(benzene):
    both, in_truth = 0, 0
    for graph, nodes, edges in zip(benzene.graphs, benzene.node_truth, benzene.edge_truth):
        source, target = graph.edge_index.numpy()
        both += (nodes[source] & nodes[target]).sum()
        in_truth += edges.sum()
        assert nodes[source[edges]].all()
    assert both > in_truth


@pytest.mark.parametrize("name", ["benzene", "mutag"])
def test_graphs_are_well_formed(name, request):
    bunch = request.getfixturevalue(name)
    atomic_number = {"C": 6, "N": 7, "O": 8, "S": 16, "F": 9, "P": 15, "Cl": 17, "Br": 35, "I": 53}
    order = {"single": 1.0, "double": 2.0, "triple": 3.0, "aromatic": 1.5}
    for graph in bunch.graphs:
        assert graph.validate()
        assert graph.is_undirected()
        assert not graph.has_self_loops()
        assert graph.is_coalesced()
        assert (graph.x.sum(dim=1) == 1).all()
        assert (graph.edge_attr.sum(dim=1) == 1).all()
        assert [atomic_number[bunch.atoms[column]] for column in graph.x.argmax(dim=1)] == graph.z.tolist()
        assert [order[bunch.bonds[column]] for column in graph.edge_attr.argmax(dim=1)] == graph.bond_order.tolist()
        assert nx.is_connected(nx.Graph(graph.edge_index.T.tolist()))
    assert [int(graph.y) for graph in bunch.graphs] == bunch.target.tolist()
    assert len(bunch.DESCR) > 200


def test_mutag_counts(mutag):
    assert mutag.data.shape == (188,)
    assert sum(graph.num_nodes for graph in mutag.graphs) == 3371
    assert sum(graph.num_edges for graph in mutag.graphs) == 2 * 3721
    assert mutag.target.sum() == 125
    assert mutag.data.truth is None
    assert len(mutag.evaluation_index["all_motif"]) == 0


def nitro_bonds(graph):
    """Bonds of a nitrogen with two oxygens that have no other neighbour."""
    source, target = graph.edge_index.numpy()
    z, degree = graph.z.numpy(), np.bincount(source, minlength=graph.num_nodes)
    is_oxygen_end = (z[source] == 7) & (z[target] == 8) & (degree[target] == 1)
    groups = np.flatnonzero(np.bincount(source[is_oxygen_end], minlength=graph.num_nodes) == 2)
    hit = is_oxygen_end & np.isin(source, groups)
    pairs = set(zip(source[hit].tolist(), target[hit].tolist()))
    return np.array([(u, v) in pairs or (v, u) in pairs for u, v in zip(source.tolist(), target.tolist())])


def test_every_mutag_molecule_has_a_nitro_group():
    mutag = load_mutag(truth="no2")
    for graph, mask, alternatives in zip(mutag.graphs, mutag.edge_truth, mutag.data.truth["edge"]):
        assert np.array_equal(mask, nitro_bonds(graph))
        assert mask.any()
        assert np.array_equal(alternatives[0], mask)
    assert sum(mask.sum() for mask in mutag.edge_truth) == 4 * 272
    assert len(mutag.evaluation_index["all_motif"]) == 188


def test_amines_are_rare_and_speak_against_mutagenicity():
    mutag = load_mutag(truth="nh2")
    has_amine = mutag.evaluation_index["all_motif"]
    assert len(has_amine) == 15
    assert mutag.target[has_amine].sum() == 4
    for i, mask in enumerate(mutag.edge_truth):
        assert (mutag.data.truth["edge"][i] is None) == (i not in has_amine)
        ends = mutag.graphs[i].z[mutag.graphs[i].edge_index[:, mask]]
        assert set(map(frozenset, ends.T.tolist())) <= {frozenset({6, 7})}


def test_mutag_refuses_other_truths():
    with pytest.raises(ValueError, match="must be None or 'no2' or 'nh2'. Got 'n2o' instead"):
        load_mutag(truth="n2o")


@pytest.mark.parametrize("load", [load_benzene, load_mutag])
def test_return_X_y(load):
    X, y = load(return_X_y=True)
    bunch = load()
    assert np.array_equal(y, bunch.target)
    assert X.shape == bunch.data.shape
    assert np.array_equal(X.store.edge_index, bunch.data.store.edge_index)
