"""What the classifier and the regressor share: parameters, checks, training, outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skgnnx.blackbox import BlackBox
from skgnnx.graphs import Instances, check_instances
from skgnnx.models.checks import usable_device, width
from skgnnx.models.networks import GNN, build_network
from skgnnx.models.training import Target, Training, own_random_state
from skgnnx.validation import Interval, NonNegativeFloat, PositiveFloat, PositiveInt, check_parameters

ConvName = Literal["gin", "gine", "gcn", "sage", "gat", "graphconv"]
BelowOne = Annotated[float, Interval(float, 0, 1 - 1e-9)]


@dataclass(eq=False, repr=False, kw_only=True)
class BaseGNN(BaseEstimator):
    """Parameters and training of `GNNClassifier` and `GNNRegressor`.

    Parameters
    ----------
    conv : {"gin", "gine", "gcn", "sage", "gat", "graphconv"} or callable, default="gin"
        The layer. "gine" and "gat" read ``edge_attr``, "gcn" and "graphconv" read ``edge_weight``; the others read
        neither. A callable ``factory(in_channels, out_channels)``, such as a PyG layer class, returns one message
        passing layer, or a whole network whose ``forward`` is filled by name and that stands for all down to `dropout`.
    hidden : int >= 1, default=64
        Channels of every layer.
    layers : int >= 1, default=3
        Number of layers, and so of hops that a prediction sees.
    pool : {"sum", "mean", "max"}, default="sum"
        How nodes become a graph; not used for predictions about nodes. Sums count motifs, which means cannot.
    norm : {None, "batch", "layer"}, default="batch"
        Normalisation after every layer.
    dropout : float in [0, 1), default=0.0
        Share of the hidden units dropped in training.
    lr : float > 0, default=0.01
        Learning rate of Adam.
    schedule : {"cosine", "constant"}, default="cosine"
        Whether the learning rate falls to 0 along half a cosine over all `epochs`, which makes the last epochs quiet.
    weight_decay : float >= 0, default=0.0
        Of Adam.
    epochs : int >= 1, default=100
        Most passes over the training instances.
    batch_size : int >= 1, default=64
        Graphs per step. Nodes of one graph are one step: the graph is run whole, and the loss is that of the given
        nodes.
    early_stopping : bool, default=False
        Whether a share of the instances is set aside; training then stops when their loss no longer falls, and the
        weights of the best epoch are kept.
    validation_fraction : float in (0, 1), default=0.1
        The share that is set aside, of each class where the classes allow it.
    n_iter_no_change : int >= 1, default=20
        Epochs without a gain in the validation loss of at least `tol`, after which training stops.
    tol : float >= 0, default=1e-4
        See `n_iter_no_change`.
    device : str or torch.device, default="cpu"
        Where the network is trained and stays.
    random_state : int, RandomState or None, default=0
        Seed of the weights, the order of the graphs, dropout and the validation set; 0 because training should repeat.
        None draws one from numpy's global state. The global state of torch is left as it was.
    """

    conv: ConvName | Callable[..., Any] = "gin"
    hidden: PositiveInt = 64
    layers: PositiveInt = 3
    pool: Literal["sum", "mean", "max"] = "sum"
    norm: Literal["batch", "layer"] | None = "batch"
    dropout: BelowOne = 0.0
    lr: PositiveFloat = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NonNegativeFloat = 0.0
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 64
    early_stopping: bool = False
    validation_fraction: Annotated[float, Interval(float, 1e-9, 1 - 1e-9)] = 0.1
    n_iter_no_change: PositiveInt = 20
    tol: NonNegativeFloat = 1e-4
    device: str | torch.device = "cpu"
    random_state: int | np.random.RandomState | None = 0

    def _train(
        self,
        X: Instances,
        make_target: Callable[[nn.Module, torch.device], Target],
        out_channels: int,
        strata: np.ndarray | None = None,
    ) -> Self:
        """Build a network and train it; called after y is checked."""
        seed, device = self._seed(), usable_device(self.device, type(self).__name__)
        rows, validation = self._split(len(X), strata, seed)
        self.n_features_in_ = X.num_units("feature", 0)
        self.n_edge_features_in_ = width(X, "edge_attr")
        self.level_ = X.level
        with own_random_state(seed, device):
            module = self._build(X, out_channels).to(device)
            training = Training(module, X, make_target(module, device), self.batch_size, np.random.default_rng(seed))
            course = training.run(
                rows,
                validation,
                epochs=self.epochs,
                lr=self.lr,
                schedule=self.schedule,
                weight_decay=self.weight_decay,
                patience=self.n_iter_no_change,
                tol=self.tol,
            )
        self.module_ = module
        self.loss_curve_ = course.losses
        self.validation_loss_curve_ = course.validation_losses if self.early_stopping else None
        self.n_iter_ = len(course.losses)
        return self

    def _build(self, X: Instances, out_channels: int) -> nn.Module:
        return build_network(
            self.conv,
            self.n_features_in_,
            self.n_edge_features_in_,
            out_channels,
            hidden=self.hidden,
            layers=self.layers,
            pool=self.pool if X.level == "graph" else None,
            norm=self.norm,
            dropout=self.dropout,
        )

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _split(self, n: int, strata: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        rows = np.arange(n)
        if not self.early_stopping:
            return rows, None
        held_out = int(np.ceil(n * self.validation_fraction))
        if strata is not None:
            counts = np.bincount(strata)
            strata = strata if counts.min() > 1 and min(held_out, n - held_out) >= len(counts) else None
        kept, validation = train_test_split(
            rows, test_size=self.validation_fraction, random_state=seed, stratify=strata
        )
        return np.sort(kept), np.sort(validation)

    def _checked(self, X: Any, reset: bool) -> Instances:
        check_parameters(self)
        X = check_instances(X)
        name = type(self).__name__
        if X.level == "edge":
            raise ValueError(f"{name} must get graphs or nodes. Got links; train a network of your own for them.")
        if "x" not in X.store.columns:
            raise ValueError(f"{name} must get graphs with node features 'x'. Got none; a column of ones is a start.")
        if reset:
            return X
        self._check_as_in_fit(X)
        return X

    def _check_as_in_fit(self, X: Instances) -> None:
        name = type(self).__name__
        if X.level != self.level_:
            raise ValueError(f"X must be about {self.level_}s, as in fit of {name}. Got {X.level}s.")
        for key, expected in (("x", self.n_features_in_), ("edge_attr", self.n_edge_features_in_)):
            got = width(X, key)
            if got != expected and (key == "x" or self._reads_edges()):
                raise ValueError(
                    f"X must have {expected} columns in {key!r}, as in fit of {name}. Got {got}; apply the same "
                    "preprocessing to both."
                )

    def _reads_edges(self) -> bool:
        return isinstance(self.module_, GNN) and self.module_.reads == "edge_attr"

    def _outputs(self, X: Any) -> Tensor:
        """Return the raw outputs (n, C) of the trained network."""
        check_is_fitted(self, "module_")
        X = self._checked(X, reset=False)
        with BlackBox(self.module_, output="regression").open(X) as gnn:
            return gnn.reference.cpu()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags
