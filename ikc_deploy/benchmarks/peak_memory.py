"""Peak memory of one call, in a process that does nothing else.

    python -m ikc_deploy.benchmarks.peak_memory torch-eager SUBJECT CASE

opens the candidate (subject and case are JSON), runs one call and prints the peak resident set of
the process in MiB: interpreter, libraries, networks and buffers together, which is the memory that
a deployment needs. GPU memory is not included.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from ikc_deploy.benchmarks.candidates import candidates
from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.errors import BackendError, IkcError

_STATUS: Final = Path("/proc/self/status")


def peak_memory_mib(candidate: str, subject: Subject, case: BenchmarkCase) -> float | None:
    """Run one call in a new process and return its peak resident set.

    One correction is enough: further ones use the same buffers.

    Args:
        candidate: Name of the candidate.
        subject: Networks under test.
        case: Case to run.

    Returns:
        MiB; None if the system does not report it.

    Raises:
        BackendError: The process failed; the message has its last line.
    """
    short = replace(case, iters=min(case.iters, 1))
    values = [json.dumps(asdict(item)) for item in (subject, short)]
    command = [sys.executable, "-m", __name__, candidate, *values]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        said = child.stderr.strip().splitlines()
        reason = said[-1] if said else f"exit status {child.returncode}, perhaps out of memory"
        raise BackendError(f"the memory of {candidate} could not be measured ({case}): {reason}")
    peak: float | None = json.loads(child.stdout.splitlines()[-1])
    return peak


def own_peak_mib() -> float | None:
    """Return the peak resident set of this process in MiB; None if the system reports none."""
    if _STATUS.is_file():
        # Not ru_maxrss: on Linux it outlives exec, so a child starts with its parent's peak.
        kib = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        return round(int(kib[1]) / 2**10, 1) if kib else None
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _measure(candidate: str, subject: Subject, case: BenchmarkCase) -> float | None:
    runner = candidates()[candidate].open(subject, case)
    runner.run()
    return own_peak_mib()


if __name__ == "__main__":
    try:
        name, asked, size = sys.argv[1:]
        print(
            json.dumps(
                _measure(name, Subject(**json.loads(asked)), BenchmarkCase(**json.loads(size)))
            )
        )
    except IkcError as failure:
        sys.exit(str(failure))
