"""skgnnx: explain graph neural networks the scikit-learn way."""

from skgnnx.graphs import Instance, Instances, check_instances

__version__ = "0.1.0.dev0"
__all__ = ["Instance", "Instances", "check_instances"]
