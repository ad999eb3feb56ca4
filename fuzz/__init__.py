"""Loops that hurt running services and keep books on what they promised (docs/testing.rst).

================== ==========================================================================
``ledger``         what was accepted, acknowledged and subscribed to, and what broke a promise
``people``         user agents and application servers that behave as real ones do at their worst
``kill_loop``      ``autopush_standalone``, killed and restarted again and again
``cluster_loop``   four daemons on one DynamoDB: kills, faults of the store, changes of the month
================== ==========================================================================
"""
