import os

# Tensors here are tiny: more threads only wait for each other, above all on a busy machine. Set
# here because OpenMP reads it once, when conftest.py imports the first library that uses it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
