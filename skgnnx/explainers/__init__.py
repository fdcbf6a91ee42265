"""One file per method; `__all__` is the registry of explainers."""

from skgnnx.explainers.cam import CAM
from skgnnx.explainers.causal_screening import CausalScreening
from skgnnx.explainers.erasure_search import ErasureSearch
from skgnnx.explainers.excitation_bp import ExcitationBP
from skgnnx.explainers.gnn_explainer import GNNExplainer
from skgnnx.explainers.gnn_lrp import GNNLRP
from skgnnx.explainers.grad_cam import GradCAM
from skgnnx.explainers.graph_mask import GraphMask
from skgnnx.explainers.guided_backprop import GuidedBackprop
from skgnnx.explainers.information_bottleneck import InformationBottleneck
from skgnnx.explainers.input_x_gradient import InputXGradient
from skgnnx.explainers.integrated_gradients import IntegratedGradients
from skgnnx.explainers.lrp import LRP
from skgnnx.explainers.pg_explainer import PGExplainer
from skgnnx.explainers.random_explainer import RandomExplainer
from skgnnx.explainers.sensitivity_analysis import SensitivityAnalysis
from skgnnx.explainers.subgraphx import SubgraphX
from skgnnx.explainers.zorro import Zorro

__all__ = [
    "CAM",
    "CausalScreening",
    "ErasureSearch",
    "ExcitationBP",
    "GNNExplainer",
    "GNNLRP",
    "GradCAM",
    "GraphMask",
    "GuidedBackprop",
    "InformationBottleneck",
    "InputXGradient",
    "IntegratedGradients",
    "LRP",
    "PGExplainer",
    "RandomExplainer",
    "SensitivityAnalysis",
    "SubgraphX",
    "Zorro",
]
