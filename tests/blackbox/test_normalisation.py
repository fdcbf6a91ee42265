"""What layers keep of the edges is handed to every batch by edge and node, whatever else was learned or failed."""

import numpy as np
import torch
from blackbox_cases import Stack, opened, random_graph, seeded
from torch_geometric import nn as layers

from skgnnx import Instances
from skgnnx.graphs.batch import GraphBatch
from skgnnx.graphs.computation_graph import receptive_fields

FIRST, OTHERS = np.array([0]), np.array([20, 31])


def check_outputs(gnn, rows):
    graphs = receptive_fields(gnn.X, rows, 2, 0, False)
    batch = gnn._normaliser.hand_to(GraphBatch(gnn.X, rows, graphs))
    with torch.no_grad():
        outputs = gnn.forward(batch)
    torch.testing.assert_close(outputs, gnn.reference[torch.from_numpy(rows)], atol=1e-6, rtol=1e-5)


def test_a_part_that_cannot_be_normalised_leaves_the_others_right(monkeypatch):
    X = Instances.from_nodes(random_graph(0, nodes=40, edges=60))
    nodes = {
        name: receptive_fields(X, rows, 2, 0, False).node_id for name, rows in (("first", FIRST), ("others", OTHERS))
    }
    assert not np.isin(nodes["others"], nodes["first"]).all()
    with opened(seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2))), X) as gnn:
        normaliser = gnn._normaliser
        assert normaliser.prepare(FIRST, nodes["first"])
        with monkeypatch.context() as patch:
            patch.setattr(normaliser, "_normalised", lambda union, cached: {})
            assert not normaliser.prepare(OTHERS, nodes["others"])
        check_outputs(gnn, FIRST)
        assert normaliser.prepare(OTHERS, nodes["others"])
        check_outputs(gnn, OTHERS)
        check_outputs(gnn, FIRST)


def test_a_model_without_such_layers_is_asked_once(monkeypatch):
    X = Instances.from_nodes(random_graph(0, nodes=40, edges=60))
    with opened(seeded(lambda: Stack(layers.GCNConv(3, 4), layers.GCNConv(4, 2))), X) as gnn:
        normaliser, asked = gnn._normaliser, []
        monkeypatch.setattr(normaliser, "_normalised", lambda union, cached: asked.append(union) or {})
        for rows in (FIRST, OTHERS):
            assert not normaliser.prepare(rows, receptive_fields(X, rows, 2, 0, False).node_id)
        assert len(asked) == 1
