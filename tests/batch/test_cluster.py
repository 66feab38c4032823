from __future__ import annotations

import pytest

from ikc_deploy import InputError
from ikc_deploy.batch.cluster import Share, divide
from ikc_deploy.batch.settings import ClusterSettings


@pytest.mark.parametrize(
    ("room", "tasks", "actors", "cores", "share"),
    [
        ((2, 0), 9, None, 0, Share(1, 2, 0)),
        ((2, 0), 9, 2, 0, Share(2, 1, 0)),
        ((16, 0), 99, None, 0, Share(4, 4, 0)),
        ((16, 0), 3, None, 0, Share(3, 4, 0)),
        ((16, 0), 99, None, 8, Share(2, 8, 0)),
        ((16, 0), 2, 8, 0, Share(2, 2, 0)),
        ((16, 2), 99, None, 0, Share(2, 4, 1)),
        ((16, 2), 99, 1, 2, Share(1, 2, 1)),
    ],
)
def test_a_cluster_is_divided_among_actors(
    room: tuple[float, float], tasks: int, actors: int | None, cores: int, share: Share
) -> None:
    assert divide(*room, tasks, actors, cores) == share


@pytest.mark.parametrize(
    ("room", "actors", "cores", "words"),
    [
        ((4, 0), 3, 2, "3 actors of 2 cores do not fit into a cluster of 4 cores"),
        ((1, 0), None, 2, "1 actors of 2 cores do not fit"),
        ((16, 2), 3, 0, "do not fit into a cluster of 2 GPUs"),
    ],
)
def test_more_than_there_is_room_for_is_refused(
    room: tuple[float, float], actors: int | None, cores: int, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        divide(*room, 99, actors, cores)


def test_no_actors_are_no_cluster() -> None:
    with pytest.raises(InputError, match="at least one actor"):
        ClusterSettings(actors=0)
