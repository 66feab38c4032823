"""A simulation of fleets of workers: what docs/scale.md is made from."""
