from __future__ import annotations

import torch

from ikc_deploy.offline.patches import Patches


def test_patches_are_cut_from_the_picture_and_mostly_where_there_is_texture() -> None:
    picture = torch.full((1, 3, 60, 80), 0.5)
    generator = torch.Generator().manual_seed(0)
    picture[:, :, 20:40, 50:70] += 0.05 * torch.randn(1, 3, 20, 20, generator=generator)
    patches = Patches(picture, 16).draw(50, generator)
    assert patches.shape == (50, 3, 16, 16)
    assert all(float(patch.std()) > 0 for patch in patches)
    windows = picture[0].unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4)
    places = windows.reshape(-1, 3, 16, 16)
    assert all((places == patch).flatten(1).all(dim=1).any() for patch in patches)


def test_the_same_seed_draws_the_same_patches_and_flat_pictures_have_some() -> None:
    flat = torch.zeros(1, 3, 20, 20)
    flat[0, 0, 3, 4] = 1e-3
    drawn = [Patches(flat, 10).draw(8, torch.Generator().manual_seed(seed)) for seed in (3, 3)]
    assert torch.equal(*drawn)
