"""autopush: a Web Push service."""

__version__ = "2.0.0"
