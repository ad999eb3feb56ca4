"""Documented names of :mod:`autopush.options.parser` (spec/configuration 1)."""

from autopush.options.optionparser import OptionParser
from autopush.options.parser import (
    add_connection_args,
    add_endpoint_args,
    add_shared_args,
    connection_parser,
    endpoint_parser,
    parse_connection,
    parse_endpoint,
    parse_standalone,
    standalone_parser,
)

__all__ = [
    "OptionParser",
    "add_connection_args",
    "add_endpoint_args",
    "add_shared_args",
    "connection_parser",
    "endpoint_parser",
    "parse_connection",
    "parse_endpoint",
    "parse_standalone",
    "standalone_parser",
]
