"""What a user can get wrong, and the sentence that says what, where, and how to repair it."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch_geometric.data import Data, HeteroData

from skgnnx import Explanations, GNNExplainer, InputXGradient, Instances, RandomExplainer, SensitivityAnalysis
from skgnnx.models import GNNClassifier
from skgnnx.testing import example

MODEL, X = example("graph")
NODE_MODEL, NODES = example("node")
GRAPH = NODES[0].graph
EDGES = torch.tensor([[0, 1], [1, 0]])


def graph(num_features=4, value=1.0, edge_index=EDGES, **keys):
    return Data(x=torch.full((2, num_features), value), edge_index=edge_index, **keys)


def explain(instances, model=MODEL, **params):
    return SensitivityAnalysis(model, **params).explain(instances)


BAD_X = [
    (GRAPH, TypeError, r"Got one Data; use Instances.from_nodes\(data\) .* Instances.from_graphs\(\[data\]\)"),
    ([], ValueError, r"Found array with 0 sample\(s\)"), (X[:0], ValueError, r"Found array with 0 sample\(s\)"),
    (np.zeros((3, 4)), TypeError, "must be a torch_geometric Data. Got ndarray at index 0"),
    ([graph(), 3], TypeError, "must be a torch_geometric Data. Got int at index 1"),
    ([HeteroData()], TypeError, "Got HeteroData at index 0"),
    ("graphs", TypeError, "must be Instances or a sequence of graphs. Got str"),
    (None, TypeError, "must be Instances or a sequence of graphs. Got NoneType"),
    ([X[0], NODES[0]], ValueError, "the same level. Got 'node' at index 1, 'graph' before"),
    ([X[0], graph()], TypeError, "only Instance objects or only graphs. Got Data at index 1"),
    ([graph(4), graph(5)], ValueError, r"same number of columns in 'x'. Got \(5,\) in graph 1 and \(4,\)"),
    ([graph(5)], ValueError, "the 4 node features that TinyNetwork was built for. Got 5"),
    ([graph(), graph(value=float("nan"))], ValueError, "'x' must be finite. Got NaN or infinity at node 0 of graph 1"),
    ([graph(edge_attr=torch.tensor([1.0, torch.inf]))], ValueError, "'edge_attr' must be finite. .* edge 1 of graph 0"),
    ([graph(edge_index=torch.tensor([[0], [2]]))], ValueError, r"ids in \[0, 2\). Got edge \(0, 2\) at position 0"),
    ([graph(edge_index=EDGES.T.reshape(-1))], ValueError, r"'edge_index' must have shape \(2, num_edges\)"),
    ([Data(x=torch.ones(2, 4))], ValueError, "Each graph must have 'edge_index'"),
    ([Data(edge_index=EDGES, num_nodes=2)], TypeError, "needs 'x', which the graphs do not hold"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "error", "sentence"), BAD_X)
@pytest.mark.parametrize("explainer", [SensitivityAnalysis(MODEL), GNNExplainer(MODEL, epochs=1)], ids=repr)
def test_what_to_explain(explainer, bad, error, sentence):
    with pytest.raises(error, match=sentence):
        explainer.explain(bad)
    if "built for" not in sentence and "needs 'x'" not in sentence:  # fit does not run the model
        with pytest.raises(error, match=sentence):
            explainer.fit(bad)


@pytest.mark.parametrize(("call", "error", "sentence"), [
    (lambda: Instances.from_nodes(GRAPH, [0, 10]), IndexError, r"node ids in \[0, 10\). Got 10 at position 1"),
    (lambda: Instances.from_nodes(GRAPH, [-1]), IndexError, r"node ids in \[0, 10\). Got -1 at position 0"),
    (lambda: Instances.from_nodes(GRAPH, [0.5]), TypeError, "'nodes' must hold integers"),
    (lambda: Instances.from_nodes(GRAPH, np.ones(3, dtype=bool)), ValueError, r"must have shape \(10,\). Got \(3,\)"),
    (lambda: Instances.from_nodes(GRAPH, []), ValueError, r"Found array with 0 sample\(s\)"),
    (lambda: Instances.from_edges(GRAPH, [[0], [10]]), IndexError, r"in \[0, 10\). Got \[0, 10\] at position 0"),
    (lambda: Instances.from_edges(GRAPH, [[0, 1, 2]]), ValueError, r"must have shape \(2, n\)"),
    (lambda: Instances.from_graphs(GRAPH), TypeError, "Got one Data"),
    (lambda: Instances.from_graphs([graph()], target=[0, 1]), ValueError, "'target' must be .* or 1 ints. Got 2"),
    (lambda: Instances.from_graphs([graph()], target=-1), ValueError, "'target' must be at least 0. Got -1 at index 0"),
    (lambda: Instances.from_graphs([graph()], target=["a"]), TypeError, "'target' must hold integers"),
    (lambda: Instances.from_graphs([graph()], ids=["a", "b"]), ValueError, "'ids' must have length 1. Got 2"),
    (lambda: Instances.from_graphs([graph()], truth={"edge": [[True]]}), ValueError, r"shape \(2,\). Got shape \(1,\)"),
    (lambda: Instances.from_graphs([graph()], truth={"arc": [None]}), ValueError, "keys of 'truth' .* Got 'arc'"),
    (lambda: Instances.concat([X, NODES]), ValueError, "the same level"),
])  # fmt: skip
def test_what_instances_are_made_of(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


@pytest.mark.parametrize(
    "explainer", [SensitivityAnalysis(MODEL), RandomExplainer(MODEL), GNNExplainer(MODEL, epochs=1)]
)
def test_targets_must_be_classes_of_the_model(explainer):
    with pytest.raises(ValueError, match=r"'target' must be in \[0, 2\) for TinyNetwork. Got 2 at index 1"):
        explainer.explain(X.with_target([0, 2, 1, 0, 1]))


class NotANetwork(BaseEstimator):
    def fit(self, X, y=None):
        return self


PIPELINE = make_pipeline(FunctionTransformer(), GNNClassifier())


@pytest.mark.parametrize(("model", "error", "sentence"), [
    (None, TypeError, "'model' must be an nn.Module or a fitted estimator with 'module_'. Got None"),
    (3, TypeError, "'model' must be an nn.Module .* Got int"), ("net.pt", TypeError, "Got str"),
    (lambda graphs: None, TypeError, "'model' must be an nn.Module or a fitted estimator with 'module_'. Got function"),
    (type(MODEL), TypeError, "'model' must be an nn.Module .* Got type"),
    (GNNClassifier(), NotFittedError, "must be fitted. Got GNNClassifier without a network in 'module_'; call fit"),
    (FrozenEstimator(GNNClassifier()), NotFittedError, "'model' must be fitted. Got GNNClassifier"),
    (NotANetwork(), NotFittedError, "'model' must be fitted. Got NotANetwork without a network"),
    (LogisticRegression(), NotFittedError, "'model' must be fitted. Got LogisticRegression"),
    (PIPELINE, TypeError, r"not a pipeline, whose earlier steps would be skipped. Got Pipeline; use model=pipe\[-1\]"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["fit", "explain", "transform", "fit_transform"])
def test_what_may_be_a_model(model, error, sentence, method):
    with pytest.raises(error, match=sentence):
        getattr(InputXGradient(model), method)(X)


def test_black_box_methods_also_take_a_callable():
    assert len(RandomExplainer(lambda graphs: np.eye(2)[[g.num_nodes % 2 for g in graphs]]).explain(X)) == 5
    with pytest.raises(TypeError, match="'module_', or a callable. Got int"):
        RandomExplainer(3).explain(X)


@pytest.mark.parametrize(("params", "sentence"), [
    ({"mask": "edges"}, "The 'mask' parameter of GNNExplainer must be 'edge' or 'node' .* Got 'edges' instead"),
    ({"epochs": 0}, r"The 'epochs' parameter of GNNExplainer must be an int in the range \[1, inf\).* Got 0 instead"),
    ({"epochs": 1.5}, "The 'epochs' parameter"), ({"epochs": True}, "The 'epochs' parameter"),
    ({"lr": -1.0}, "The 'lr' parameter"), ({"edge_size": float("nan")}, "The 'edge_size' parameter"),
    ({"sparsity": 1.5}, r"The 'sparsity' parameter of GNNExplainer must be a float in the range \[0, 1\]. Got 1.5"),
    ({"batch_size": 0}, "The 'batch_size' parameter of GNNExplainer must be an int .* or 'auto'. Got 0"),
    ({"max_edges": 0}, r"The 'max_edges' parameter of GNNExplainer must be an int in .* \[1, inf\) or None. Got 0"),
    ({"max_edges": 10.0}, "The 'max_edges' .* Got 10.0"), ({"max_edges": "auto"}, "The 'max_edges' .* Got 'auto'"),
    ({"batch_size": "big"}, "Got 'big' instead"), ({"output": "logit"}, "The 'output' parameter .* Got 'logit'"),
    ({"on_error": "ignore"}, "The 'on_error' parameter of GNNExplainer must be 'raise' or 'nan'. Got 'ignore'"),
    ({"n_jobs": 2.0}, "The 'n_jobs' parameter"), ({"random_state": "a"}, "The 'random_state' parameter"),
    ({"preset": "survey"}, "The 'preset' parameter"), ({"forward": 3}, "The 'forward' parameter .* a callable"),
    ({"verbose": -1}, "The 'verbose' parameter"), ({"threshold": 2}, "The 'threshold' parameter"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["fit", "explain"])
def test_values_of_parameters(params, sentence, method):
    explainer = GNNExplainer(MODEL, **params)  # the constructor stores, and checks nothing
    with pytest.raises(ValueError, match=sentence):
        getattr(explainer, method)(X)


def test_names_of_parameters():
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        GNNExplainer(MODEL, epoch=3)
    with pytest.raises(ValueError, match="Invalid parameter 'epoch' for estimator GNNExplainer"):
        GNNExplainer(MODEL).set_params(epoch=3)


def test_another_number_of_features_than_in_fit():
    explainer = SensitivityAnalysis(MODEL).fit(X)
    with pytest.raises(ValueError, match="X must have 4 node features, as in fit. Got 5; apply the same preprocessing"):
        explainer.explain([graph(5)])


def test_level_and_output_must_fit_each_other():
    with pytest.raises(
        ValueError, match="must return one row per node .* use the Instances constructor of the right level"
    ):
        explain(NODES)
    with pytest.raises(ValueError, match="must return one row per graph"):
        explain(X, NODE_MODEL)
    with pytest.raises(ValueError, match="output='binary_logit' needs a model with one output column. Got 2"):
        explain(X, output="binary_logit")


def npz(path):
    with path.open("wb") as file:
        np.savez(file, a=np.arange(3))


def npy(path):
    with path.open("wb") as file:
        np.save(file, np.arange(3))


@pytest.mark.parametrize("write", [
    npz, lambda path: path.write_bytes(b"text"), lambda path: path.write_bytes(b""),
    lambda path: torch.save(MODEL.state_dict(), path), npy,
], ids=["npz", "text", "empty", "torch", "npy"])  # fmt: skip
def test_files_that_are_not_ours(tmp_path, write):
    path = tmp_path / "file"
    write(path)
    with pytest.raises(
        ValueError, match=f"must have been written by Explanations.save. Got another or a damaged one: .*{path.name}"
    ):
        Explanations.load(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        Explanations.load(tmp_path / "missing")
