"""For every check an explainer that breaks its law, and nothing else if that can be."""

import copy
import os
import warnings
from dataclasses import replace
from typing import Literal

import hypothesis
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch_geometric.data import Data

from skgnnx import Explanations, GNNExplainer, InputXGradient, RandomExplainer, SensitivityAnalysis, check_instances
from skgnnx.blackbox import BlackBox
from skgnnx.blackbox.opening import of_targets
from skgnnx.explainers.base import explainer
from skgnnx.explainers.gnn_explainer import PRESETS
from skgnnx.graphs import Entries
from skgnnx.taxonomy import Taxonomy
from skgnnx.testing import check_explainer, checks
from skgnnx.testing.checks import SLOW

BITWISE = {
    "check_explainers_leave_each_other_alone",
    "check_learning",
    "check_clone_and_pickle",
    "check_callers",
    "check_randomness",
    "check_trained_models",
}


def scaled(masks, factor):
    return replace(masks, **{kind: getattr(masks, kind) * factor for kind in MASKS if getattr(masks, kind) is not None})


MASKS = ("edge", "node", "feature", "node_feature")


@explainer
class LeavesEvaluationMode(SensitivityAnalysis):
    def explain(self, X):
        E = super().explain(X)
        getattr(self.model, "module_", self.model).eval()
        return E


@explainer
class RestoresOnlyAfterSuccess(SensitivityAnalysis):
    def explain(self, X):
        self.network().explained_by = type(self).__name__
        E = super().explain(X)
        del self.network().explained_by
        return E


@explainer
class ChangesPresetsOfOthers(SensitivityAnalysis):
    def explain(self, X):
        PRESETS["default"]["lr"] = 0.5
        return super().explain(X)


@explainer
class AveragesOverTheBatch(SensitivityAnalysis):
    def _explain_batch(self, gnn, batch, seed):
        return scaled(super()._explain_batch(gnn, batch, seed), 1 / len(batch))


@explainer
class SeedsByPosition(RandomExplainer):
    def _explain_batch(self, gnn, batch, seed):
        masks = super()._explain_batch(gnn, batch, seed)
        place = torch.from_numpy(1.0 / (1 + batch.positions))
        per = {"edge": batch.edge_instance, "node": batch.node_instance, "node_feature": batch.node_instance}
        kind = self.mask
        rows = place if kind == "feature" else place[per[kind]]
        values = getattr(masks, kind)
        return replace(masks, **{kind: values * (rows if values.dim() == 1 else rows[:, None])})


@explainer
class LooksAtOthers(SensitivityAnalysis):
    def _explain_batch(self, gnn, batch, seed):
        return scaled(super()._explain_batch(gnn, batch, seed), 1.0 + len(gnn.targets))


@explainer
class ReadsListsDifferently(SensitivityAnalysis):
    def explain(self, X):
        if isinstance(X, list) and X:
            X = check_instances(X).with_target(1)
        return super().explain(X)


@explainer
class SeedsByProcess(SensitivityAnalysis):
    def _explain_batch(self, gnn, batch, seed):
        return scaled(super()._explain_batch(gnn, batch, seed), 1.0 + os.getpid())


@explainer
class ExplainsClassZero(SensitivityAnalysis):
    def explain(self, X):
        X = check_instances(X)
        return super().explain(X.with_target(0) if X.target is None else X)


class LosesEdges(BlackBox):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.forward is None and isinstance(self.model, nn.Module):
            self.forward = without_edges


def without_edges(model, batch):
    given = {key: batch[key] for key in ("batch", "edge_label_index") if key in batch}
    if getattr(model, "edge_input", None):
        given[model.edge_input] = batch[model.edge_input][:0]
    return model(batch.x, batch.edge_index[:, :0], **given)


@explainer
class ExplainsAnotherModel(SensitivityAnalysis):
    def _box(self):
        return LosesEdges(self.model, output=self.output, threshold=self.threshold, forward=self.forward)


@explainer
class GivesScoresToTheOtherDirection(SensitivityAnalysis):
    def explain(self, X):
        E = super().explain(X)
        if E.kind != "edge":
            return E
        entries, X = E.stored(), E.instances
        values = entries.values.copy()
        for i in range(len(E)):
            partner = X.store.partner(X.graph_index[i])
            ids, dense = E.entries(i)[0], E[i]
            moved = np.where(partner[ids] < 0, dense[ids], dense[partner[ids]])
            values[entries.ptr[i] : entries.ptr[i + 1]] = moved
        return E._with(masks={"edge": Entries(entries.ptr, entries.ids, values, entries.explained)})


@explainer
class IgnoresOnError(SensitivityAnalysis):
    def explain(self, X):
        strict = self if self.on_error not in ("nan",) else clone(self).set_params(on_error="raise")
        return SensitivityAnalysis.explain(strict, X)


@explainer
class IsSilentAboutLoops(SensitivityAnalysis):
    def explain(self, X):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Self loops")
            return super().explain(X)


@explainer
class IgnoresSparsity(SensitivityAnalysis):
    def explain(self, X):
        sparsity = self.sparsity
        try:
            self.sparsity = sparsity if isinstance(sparsity, float) else 0.7
            return super().explain(X)
        finally:
            self.sparsity = sparsity


@explainer
class TakesOneGraph(SensitivityAnalysis):
    def explain(self, X):
        return super().explain([X] if isinstance(X, Data) else X)


@explainer
class AddsUnseededNoise(SensitivityAnalysis):
    def _explain_batch(self, gnn, batch, seed):
        return scaled(super()._explain_batch(gnn, batch, seed), 1 + 3e-7 * np.random.default_rng().choice([-1, 1]))


@explainer
class FavoursLowNodes(SensitivityAnalysis):
    def _explain_batch(self, gnn, batch, seed):
        masks = super()._explain_batch(gnn, batch, seed)
        if masks.edge is None:
            return masks
        return replace(masks, edge=masks.edge / torch.from_numpy(1.0 + batch.node_id)[batch.edge_index[0]])


@explainer
class ScoresTheWholeGraph(SensitivityAnalysis):
    def explain(self, X):
        E = super().explain(X)
        if E.kind != "edge" or E.instances.level == "graph":
            return E
        dense = [np.where(E.explained[i], E[i], 0.1) for i in range(len(E))]
        loops = [np.equal(*E.instances.store.edges(g)) for g in E.instances.graph_index]
        ptr = np.concatenate([[0], np.cumsum([len(part) for part in dense])])
        ids = np.concatenate([np.arange(len(part)) for part in dense])
        explained = ~np.concatenate(loops) | np.concatenate([E.explained[i] for i in range(len(E))])
        values = np.where(explained, np.concatenate(dense), 0)
        return E._with(masks={"edge": Entries(ptr, ids, values, explained)})


@explainer
class LeavesTheUnitInterval(GNNExplainer):
    def _explain_batch(self, gnn, batch, seed):
        return scaled(super()._explain_batch(gnn, batch, seed), 3.0)


class CountsDirections(Explanations):
    def top_k(self, k):
        return self.at_sparsity(0.0) if k > 3 else super().top_k(k)


@explainer
class KeepsTooMuch(SensitivityAnalysis):
    def explain(self, X):
        E = super().explain(X)
        E.__class__ = CountsDirections
        return E


@explainer
class KeepsAllForTheInputs(InputXGradient):
    """Says nothing of biases, although they have a share."""

    mask: Literal["node"] = "node"
    masks_ = ("node",)
    taxonomy = Taxonomy(family="gradients", remainder="bias_share")

    def _backward(self, gnn, batch, passed):
        masks = super()._backward(gnn, batch, passed)
        score = of_targets(passed.scores, batch.targets)
        return replace(masks, extras={"score": score.tolist(), "bias_share": [0.0] * len(batch)})


@explainer
class ClaimsLinks(SensitivityAnalysis):
    def explain(self, X):
        if check_instances(X).level == "edge":
            raise TypeError("links are not supported")
        return super().explain(X)


@explainer
class ClaimsToBeABlackBox(SensitivityAnalysis):
    taxonomy = Taxonomy(family="gradients", black_box=True)


@explainer
class ClaimsToBeRandom(SensitivityAnalysis):
    taxonomy = Taxonomy(family="gradients", deterministic=False)


@explainer
class ClaimsToLearn(SensitivityAnalysis):
    taxonomy = Taxonomy(family="gradients", learned=True)


@explainer
class ClonesTheModel(SensitivityAnalysis):
    def __sklearn_clone__(self):
        return copy.deepcopy(self)


@explainer
class NeedsGradientMode(SensitivityAnalysis):
    def explain(self, X):
        E = super().explain(X)
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return E
        masks = {kind: replace(entries, values=0 * entries.values) for kind, entries in E.masks.items()}
        return E._with(masks=masks)


@explainer
class TakesOnlyModules(SensitivityAnalysis):
    def explain(self, X):
        if not isinstance(self.model, nn.Module):
            raise TypeError("the model must be a module")
        return super().explain(X)


BROKEN = {
    "check_nothing_touched": (LeavesEvaluationMode, {"check_nothing_touched_after_error"}),
    "check_nothing_touched_after_error": (RestoresOnlyAfterSuccess, set()),
    "check_explainers_leave_each_other_alone": (ChangesPresetsOfOthers, set()),
    "check_batch_size": (AveragesOverTheBatch, {"check_subsets", "check_one_bad_instance"}),
    "check_order": (SeedsByPosition, {"check_subsets", "check_one_bad_instance"}),
    "check_subsets": (LooksAtOthers, {"check_one_bad_instance"}),
    "check_containers": (ReadsListsDifferently, set()),
    "check_n_jobs": (SeedsByProcess, set()),
    "check_targets": (ExplainsClassZero, set()),
    "check_prediction_survives": (ExplainsAnotherModel, {"check_targets", "check_right_entries"}),
    "check_right_entries": (GivesScoresToTheOtherDirection, {"check_relabelling"}),
    "check_one_bad_instance": (IgnoresOnError, set()),
    "check_loops_are_named": (IsSilentAboutLoops, set()),
    "check_bad_parameters": (IgnoresSparsity, set()),
    "check_bad_input": (TakesOneGraph, set()),
    "check_same_seed": (AddsUnseededNoise, BITWISE),
    "check_relabelling": (FavoursLowNodes, set()),
    "check_outside": (ScoresTheWholeGraph, {"check_right_entries"}),
    "check_shapes": (LeavesTheUnitInterval, set()),
    "check_hard_masks": (KeepsTooMuch, set()),
    "check_sums": (KeepsAllForTheInputs, set()),
    "check_tasks": (ClaimsLinks, {"check_containers"}),
    "check_black_box": (ClaimsToBeABlackBox, set()),
    "check_randomness": (ClaimsToBeRandom, set()),
    "check_learning": (ClaimsToLearn, set()),
    "check_clone_and_pickle": (ClonesTheModel, set()),
    "check_callers": (NeedsGradientMode, set()),
    "check_trained_models": (TakesOnlyModules, set()),
}


@pytest.fixture(autouse=True)
def presets(monkeypatch):
    for name, preset in PRESETS.items():
        monkeypatch.setitem(PRESETS, name, dict(preset))


@pytest.fixture(autouse=True)
def no_shrinking(request):
    """Whether a law is broken matters here, not how small the case can be made."""
    name = hypothesis.settings.get_current_profile_name()
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    examples = 5 if request.node.get_closest_marker("slow") else hypothesis.settings.default.max_examples
    options = {"phases": phases, "derandomize": True, "database": None, "max_examples": examples}
    quick = hypothesis.settings(hypothesis.settings.default, **options)
    hypothesis.settings.register_profile("no shrinking", quick)
    hypothesis.settings.load_profile("no shrinking")
    yield
    hypothesis.settings.load_profile(name)


def test_every_check_has_a_broken_explainer():
    assert list(BROKEN) == list(checks())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BROKEN]
)
def test_check_catches_its_broken_explainer(name):
    with pytest.raises(AssertionError, match=BROKEN[name][0].__name__):
        checks()[name](BROKEN[name][0])


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_broken_explainer_passes_the_other_checks(name):
    cls, also = BROKEN[name]
    check_explainer(cls, skip={name, *also, *SLOW})


def test_check_explainer_stops_at_the_first_broken_law():
    skip = set(checks()) - {"check_targets", "check_callers"}
    with pytest.raises(AssertionError, match="ExplainsClassZero: The predicted class"):
        check_explainer(ExplainsClassZero, skip=skip)
    with pytest.raises(AssertionError, match="inference_mode|no_grad"):
        check_explainer(lambda model: NeedsGradientMode(model, sparsity=0.5), skip=skip)


def test_unknown_check_is_named():
    with pytest.raises(ValueError, match="The names in 'skip' must be among .*Got 'check_nonsense'"):
        check_explainer(SensitivityAnalysis, skip=["check_nonsense"])
