"""Bundles: the manifest, the engines beside it, and what runs them."""
