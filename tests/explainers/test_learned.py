"""What all methods that learn have in common, shown on one that learns a factor per feature of the nodes."""

from __future__ import annotations

import pickle
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from skgnnx import Instances, config_context
from skgnnx.blackbox.gathering import Masks
from skgnnx.explainers.base import explainer
from skgnnx.explainers.learned import LearnedExplainer
from skgnnx.taxonomy import Taxonomy
from skgnnx.testing import example


@explainer
class LinearNodes(LearnedExplainer):
    """Scores of nodes as a linear function of their features, so that masked graphs keep the prediction."""

    masks_: ClassVar[tuple[str, ...]] = ("node",)
    taxonomy: ClassVar[Taxonomy] = Taxonomy(family="perturbation", learned=True, deterministic=False)

    def _train(self, gnn, data, network, seed, epochs):
        x = gnn.float_features(data.held_out[0])
        network = nn.Linear(x.shape[1], 1).to(x) if network is None else network
        self.sizes_ = [[len(batch) for batch in step] for step in data.steps], [len(batch) for batch in data.held_out]
        self.rows_ = [np.concatenate([batch.positions for batch in step]) for step in data.steps]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3 if epochs is None else epochs):
            for step in data.steps:
                optimizer.zero_grad()
                for batch in step:
                    gnn.prediction_loss(batch, x=batch.x * network(batch.x).sigmoid()).sum().backward()
                optimizer.step()
        return network

    def _explain_batch(self, gnn, batch, seed):
        return Masks(node=self.network_(gnn.float_features(batch)).sigmoid().squeeze(1))


def halves():
    model, X = example("graph")
    X = Instances.concat([X, X.map_graphs(shifted)])
    return model, X[: len(X) // 2], X[len(X) // 2 :]


def shifted(data):
    data = data.clone()
    data.x = data.x + 1
    return data


def test_explaining_before_fit_is_an_error():
    model, X, _ = halves()
    with pytest.raises(NotFittedError, match="LinearNodes must have learned before it explains"):
        LinearNodes(model).explain(X)


def test_the_network_belongs_to_the_explainer_and_the_seed():
    model, X, other = halves()
    state = torch.random.get_rng_state()
    first, second = (LinearNodes(model).fit(X) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.network_.weight, second.network_.weight)
    assert not torch.equal(first.network_.weight, LinearNodes(model, random_state=1).fit(X).network_.weight)
    assert first.fingerprint() == second.fingerprint() == pickle.loads(pickle.dumps(first)).fingerprint()
    assert first.fingerprint() != LinearNodes(model, random_state=1).fit(X).fingerprint()
    assert np.array_equal(first.explain(other)[0], second.explain(other)[0])


def test_any_int_is_a_seed():
    model, X, _ = halves()
    weights = [LinearNodes(model, random_state=seed).fit(X).network_.weight for seed in (-1, 2**62, 0)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_memory_takes_a_step_in_parts_and_changes_nothing():
    model, X, _ = halves()
    whole = LinearNodes(model).fit(X)
    with config_context(memory_budget=3_000):
        parts = LinearNodes(model).fit(X)
    assert len(parts.sizes_[0][0]) > len(whole.sizes_[0][0]) == 1
    torch.testing.assert_close(parts.network_.weight, whole.network_.weight)


def test_steps_and_held_out_instances():
    model, X, _ = halves()
    n = len(X)
    one = LinearNodes(model, fit_batch_size=1, validation_fraction=0.25).fit(X)
    steps, held_out = one.sizes_
    assert (len(steps), sum(held_out)) == (n - round(n / 4), round(n / 4))
    assert len(np.unique(np.concatenate(one.rows_))) == len(steps)
    for fraction in (0.0, 1.0):
        steps, held_out = LinearNodes(model, validation_fraction=fraction).fit(X).sizes_
        assert np.sum(steps) == sum(held_out) == n


def test_partial_fit_goes_on_by_one_epoch():
    model, X, other = halves()
    twice = LinearNodes(model).partial_fit(X).partial_fit(X).partial_fit(X)
    torch.testing.assert_close(twice.network_.weight, LinearNodes(model).fit(X).network_.weight)
    before = twice.network_.weight.clone()
    network = twice.network_
    twice.partial_fit(other)
    assert torch.equal(network.weight, before)  # what was learned is never changed in place
    assert len(twice.seen_) == len(X) + len(other)


def test_fit_starts_anew_unless_warm():
    model, X, _ = halves()
    cold = LinearNodes(model).fit(X).fit(X)
    assert torch.equal(cold.network_.weight, LinearNodes(model).fit(X).network_.weight)
    warm = LinearNodes(model, warm_start=True).fit(X)
    once = warm.network_.weight.clone()
    assert not torch.equal(once, warm.fit(X).network_.weight)


def test_partial_fit_refuses_other_features():
    model, X, _ = halves()
    learned = LinearNodes(model).partial_fit(X)
    wider = X.map_graphs(lambda data: data.clone().update({"x": torch.cat([data.x, data.x[:, :1]], 1)}))
    with pytest.raises(ValueError, match="as in fit"):
        learned.partial_fit(wider)


def test_instances_that_were_in_fit_are_counted():
    model, X, other = halves()
    learned = LinearNodes(model).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned.explain(other)
    message = "other instances than those in fit.* Got 2 of 3 that were in fit"
    with pytest.warns(UserWarning, match=message) as told:
        learned.explain(Instances.concat([X[:1], other[:1], X[-1:]]).with_target(0))
    assert [warning.filename for warning in told] == [__file__]


def test_other_nodes_of_the_same_graph_are_other_instances():
    model, X = example("node")
    learned = LinearNodes(model).fit(X[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned.explain(X[2:])
    with pytest.warns(UserWarning, match="Got 1 of"):
        learned.explain(X[1:])


def test_a_failure_leaves_what_was_learned():
    model, X, _ = halves()
    learned = LinearNodes(model).fit(X)
    network, seen = learned.network_, learned.seen_
    with pytest.raises(ValueError, match="target"):
        learned.partial_fit(X.with_target(99))
    assert learned.network_ is network
    assert learned.seen_ is seen
