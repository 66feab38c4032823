#!/usr/bin/env bash
# run.sh ENGINE PYTHON: the tests of one engine in an environment of its own, made if need be.
# Where the engine does not install, it is skipped and the reason is printed.
set -euo pipefail
engine=$1 python=$2
home=.scale/$engine wanted=tests/scale/$engine.txt
install() {
    "$python" -m venv "$home" &&
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted" &&
        touch "$home/done"
}
if [ "$home/done" -ot "$wanted" ] || [ "$home/done" -ot setup.cfg ]; then
    if ! install >"$home.log" 2>&1; then
        echo "test-scale: skipped $engine, which does not install here: $(grep -v '^WARNING' "$home.log" | tail -n 1)"
        exit 0
    fi
fi
exec "$home/bin/python" -m pytest -rs --confcutdir=tests/scale "tests/scale/test_$engine.py"
