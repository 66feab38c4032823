"""Where this version of the package keeps what it can make again."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from ikc_deploy.version import __version__


def cache_folder() -> Path:
    """The folder of cached bundles, timing caches and runtime caches; it need not exist yet."""
    return Path(platformdirs.user_cache_dir("ikc-deploy", appauthor=False)) / __version__
