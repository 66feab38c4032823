from __future__ import annotations

import numpy as np
import pytest

from ikc_deploy.benchmarks.synthetic_frames import natural_frame


@pytest.mark.parametrize(("height", "width"), [(256, 256), (180, 320)])
def test_the_amplitude_falls_as_one_over_frequency(height: int, width: int) -> None:
    grey = natural_frame(height, width).astype(np.float64).mean(axis=2)
    power = np.abs(np.fft.fft2(grey)) ** 2
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    edges = np.geomspace(0.02, 0.4, 16)
    ring = np.digitize(frequency, edges)
    amplitude = [np.sqrt(power[ring == index].mean()) for index in range(1, 16)]
    slope = np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(amplitude), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_channels_are_correlated_but_not_equal() -> None:
    frame = natural_frame(128, 128).reshape(-1, 3).astype(np.float64)
    correlation = np.asarray(np.corrcoef(frame.T))[np.triu_indices(3, 1)]
    assert correlation.min() > 0.7 and correlation.max() < 0.98
    assert 40 < frame.std() < 65 and 90 < frame.mean() < 120


def test_frames_depend_on_size_and_seed_alone() -> None:
    np.testing.assert_array_equal(natural_frame(16, 24), natural_frame(16, 24))
    assert (natural_frame(16, 24) != natural_frame(16, 24, seed=1)).any()
    assert natural_frame(9, 15).shape == (9, 15, 3)
