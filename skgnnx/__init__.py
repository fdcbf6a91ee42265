"""skgnnx: explain graph neural networks the scikit-learn way."""

from skgnnx.config import config_context
from skgnnx.explainers import (
    CAM,
    GNNLRP,
    LRP,
    CausalScreening,
    ErasureSearch,
    ExcitationBP,
    GNNExplainer,
    GradCAM,
    GraphMask,
    GuidedBackprop,
    InformationBottleneck,
    InputXGradient,
    IntegratedGradients,
    PGExplainer,
    RandomExplainer,
    SensitivityAnalysis,
    SubgraphX,
    Zorro,
)
from skgnnx.explainers.base import BaseExplainer
from skgnnx.graphs import Explanations, Instance, Instances, check_instances, graphs_from_smiles
from skgnnx.parallel import cross_val_explain, explain_dataset

__version__ = "0.1.0.dev0"
__all__ = [
    "BaseExplainer",
    "CAM",
    "CausalScreening",
    "ErasureSearch",
    "ExcitationBP",
    "Explanations",
    "GNNExplainer",
    "GNNLRP",
    "GradCAM",
    "GraphMask",
    "GuidedBackprop",
    "InformationBottleneck",
    "InputXGradient",
    "Instance",
    "Instances",
    "IntegratedGradients",
    "LRP",
    "PGExplainer",
    "RandomExplainer",
    "SensitivityAnalysis",
    "SubgraphX",
    "Zorro",
    "check_instances",
    "config_context",
    "cross_val_explain",
    "explain_dataset",
    "graphs_from_smiles",
]
