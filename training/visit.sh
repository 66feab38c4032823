#!/usr/bin/env bash
# Train on a borrowed GPU machine: resume a run for some minutes and bring it back in parts.
#
#   training/visit.sh RECIPE RUN MINUTES OUT DEVICE DATA...
#
# RUN is the folder of a run (created if missing). If RUN.parts/ holds OUT of an earlier visit, the run
# is first unpacked from it. RUN is written to OUT in parts of at most PART_MB. The optimizer's moments,
# the largest file, are left out if the total would exceed TOTAL_MB (the moments are then reset).
# No installation needed: python with torch, safetensors, click, rich, pillow, tensorboard.
# Test it on any machine: training/visit.sh training/smoke.toml /tmp/run 1 /tmp/out cpu FOLDER
set -euo pipefail
recipe=$1 run=$2 minutes=$3 out=$4 device=$5
shift 5
part_mb=${PART_MB:-15} total_mb=${TOTAL_MB:-60}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"

data=()
for folder in "$@"; do data+=(--data "$folder"); done
if [[ ! -e $run/state.json && -d $run.parts ]]; then
    mkdir -p "$run"
    cat "$run.parts"/run.tar.* | tar -x -C "$run"
fi
resume=()
if [[ -e $run/state.json ]]; then resume=(--resume); fi
"${PYTHON:-python3}" -m ikc_deploy.cli.ikc_train "$recipe" --out "$run" --minutes "$minutes" --device "$device" \
    "${resume[@]}" "${data[@]}"

mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$run"
files=(state.json weights-*.pt)
for file in log.jsonl checkpoint.safetensors; do
    if [[ -e $file ]]; then files+=("$file"); fi
done
if (($(du -cm "${files[@]}" optimizer-*.pt | tail -n 1 | cut -f 1) <= total_mb)); then
    files+=(optimizer-*.pt)
fi
rm -f "$out"/run.tar.*
tar -c "${files[@]}" | split -b "${part_mb}m" - "$out/run.tar."
