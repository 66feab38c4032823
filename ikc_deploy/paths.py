"""The cache folder of this version of the package, for files that it can create again."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from ikc_deploy.version import __version__


def cache_folder() -> Path:
    """Return the folder of cached bundles, timing caches and runtime caches; it may not exist."""
    return Path(platformdirs.user_cache_dir("ikc-deploy", appauthor=False)) / __version__
