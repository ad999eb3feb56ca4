"""Stand-ins for the services autopush talks to, as real servers on loopback."""
