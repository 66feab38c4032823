"""Copy the kernel priors of a finished run into the package, with log and likelihoods.

python training/ship_fkp.py runs/fkp --reference ../shared/official_fkp
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.files import write_atomically
from ikc_deploy.kernels import FKP_SCALES
from ikc_deploy.networks.flow import KernelFlow, flow_file, load_flow, shipped_flow
from ikc_deploy.networks.reference_flow import import_flow
from ikc_deploy.training.fkp_task import draw, held_out_likelihood
from ikc_deploy.training.run_log import LOG_FILE

_RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
_HELD_OUT = 10_000
_SETTLING = 20_000


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder of the published weights, FKP_x2.pt and so on.",
)
def main(run: Path, reference: Path) -> None:
    """Ship the flows of RUN, compared with the published ones on the same held-out kernels."""
    folder = shipped_flow(2).parent
    rows = []
    for scale in FKP_SCALES:
        flow = load_flow(scale, run / flow_file(scale))
        published = import_flow(reference / f"FKP_x{scale}.pt")
        rows.append(compare(flow, published))
        write_atomically(folder / flow_file(scale), (run / flow_file(scale)).read_bytes())
    result = {
        "what": "mean -log p in nats of held-out kernels (logits, as FKP measures it)",
        "command": "python training/ship_fkp.py RUN --reference ../shared/official_fkp",
        "kernels": _HELD_OUT,
        "machine": describe_machine(),
        "scales": rows,
    }
    write_atomically(_RESULTS / "fkp-likelihood.json", _json(result))
    write_atomically(folder / "fkp.log.jsonl", (run / LOG_FILE).read_bytes())


def compare(flow: KernelFlow, published: KernelFlow) -> dict[str, Any]:
    """Return the likelihoods of both flows, and of the published one with its norms settled."""
    ours, error = held_out_likelihood(flow, _HELD_OUT)
    theirs, _ = held_out_likelihood(published, _HELD_OUT)
    published.settle(draw(published, np.random.default_rng(0), _SETTLING))
    settled, _ = held_out_likelihood(published, _HELD_OUT)
    return {
        "scale": flow.scale,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "ours": ours,
        "error_of_the_mean": error,
        "published": theirs,
        "published_settled": settled,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


if __name__ == "__main__":
    main()
