from __future__ import annotations

import pytest

from ikc_deploy import errors


def test_every_error_can_be_caught_as_one() -> None:
    own = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len(own) > 5
    assert all(issubclass(kind, errors.IkcError) for kind in own)


def test_a_missing_extra_names_the_command_that_mends_it() -> None:
    with pytest.raises(
        errors.IkcError, match=r"SSIM needs.*'skimage'.*pip install 'ikc-deploy\[eval\]'"
    ):
        raise errors.MissingExtraError("skimage", "eval", "SSIM")
