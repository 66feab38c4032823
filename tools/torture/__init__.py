"""A campaign against the commands: damaged inputs, kills, full disks and concurrent writers.

`python -m tools.torture` (or `make torture`) runs it; docs/reliability.md states what it checks.
"""
