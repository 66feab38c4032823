from __future__ import annotations

import pytest

from ikc_deploy import errors


def test_a_missing_extra_names_the_command_that_mends_it() -> None:
    with pytest.raises(
        errors.IkcError, match=r"SSIM needs.*'skimage'.*pip install 'ikc-deploy\[eval\]'"
    ):
        raise errors.MissingExtraError("skimage", "eval", "SSIM")
