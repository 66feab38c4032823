from __future__ import annotations

import threading
from pathlib import Path

from ikc_deploy.locks import locked


def test_a_thread_may_lock_again_and_another_waits(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with locked(tmp_path / "new" / "bundle"):
            order.append("other")

    thread = threading.Thread(target=other)
    with locked(tmp_path / "new" / "bundle"), locked(tmp_path / "new" / "." / "bundle"):
        thread.start()
        waiting.wait()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    assert not (tmp_path / "new" / "bundle").exists()
