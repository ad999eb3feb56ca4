"""Documented names of :mod:`autopush.scripts.endpoint_diagnostic` (spec/python-api 9)."""

from autopush.scripts.endpoint_diagnostic import (
    EndpointDiagnosticCLI,
    run_endpoint_diagnostic_cli,
)

__all__ = ["EndpointDiagnosticCLI", "run_endpoint_diagnostic_cli"]
