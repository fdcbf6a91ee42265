"""What may be given as a model."""

import pytest
import torch
from blackbox_cases import Stack, seeded
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch_geometric.nn import GCNConv

from skgnnx.blackbox.resolving import is_regression, resolve_model

NETWORK = seeded(lambda: Stack(GCNConv(3, 2)))


class Classifier(ClassifierMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.module_ = NETWORK
        return self


class Regressor(RegressorMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.module_ = NETWORK
        return self


class Search(BaseEstimator):
    def fit(self, X, y=None):
        self.best_estimator_ = Regressor().fit(X)
        return self


FITTED = {
    "module": NETWORK,
    "classifier": Classifier().fit(None),
    "regressor": Regressor().fit(None),
    "frozen": FrozenEstimator(Regressor().fit(None)),
    "search": Search().fit(None),
    "parallel": nn.DataParallel(NETWORK),
}


@pytest.mark.parametrize("kind", FITTED)
def test_the_network_behind_it(kind):
    assert resolve_model(FITTED[kind]) is NETWORK
    assert is_regression(FITTED[kind]) == (kind in ("regressor", "frozen", "search"))


def test_a_compiled_network_is_unwrapped():
    assert resolve_model(torch.compile(NETWORK, backend="eager")) is NETWORK


@pytest.mark.parametrize("model", [Classifier(), FrozenEstimator(Regressor()), Search()])
def test_what_is_not_fitted(model):
    with pytest.raises(NotFittedError, match="'model' must be fitted. Got .* without a network in 'module_'; call fit"):
        resolve_model(model)


def test_pipelines_would_skip_their_steps():
    with pytest.raises(TypeError, match=r"not a pipeline.*model=pipe\[-1\] and explain\(pipe\[:-1\]"):
        resolve_model(make_pipeline(StandardScaler(), Classifier().fit(None)))


@pytest.mark.parametrize("model", [None, 3, "gcn", {"a": NETWORK}, Stack])
@pytest.mark.parametrize("outputs_only", [False, True])
def test_what_is_no_model(model, outputs_only):
    with pytest.raises(TypeError, match=f"'model' must be an nn.Module.*Got {type(model).__name__}"):
        resolve_model(model, outputs_only=outputs_only)


def test_callables_are_for_methods_that_need_outputs_only():
    def predict(graphs):
        return [0.0] * len(graphs)

    assert resolve_model(predict, outputs_only=True) is predict
    with pytest.raises(TypeError, match="'model' must be an nn.Module or a fitted estimator.*Got function"):
        resolve_model(predict)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_networks_have_no_hooks():
    with pytest.raises(TypeError, match="whose layers run in Python. Got .*ScriptModule"):
        resolve_model(torch.jit.script(nn.Linear(2, 2)))
