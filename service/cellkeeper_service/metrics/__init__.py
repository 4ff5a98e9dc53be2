"""The service's metrics and the port that serves them: the only package that knows Prometheus."""

from .merged import MergedMetrics
from .meter import ModelRow, PrometheusMeter, ReloadResult
from .recent import Recent
from .server import MetricsServer

__all__ = ["MergedMetrics", "MetricsServer", "ModelRow", "PrometheusMeter", "Recent", "ReloadResult"]
