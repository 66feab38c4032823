"""Plots, for commands and documents."""
