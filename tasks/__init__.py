"""Stages, one module each.

This package is imported before torch, which is why a variable is set here.
"""

import os

# OpenMP threads that spin for long while they wait take the cores from whoever could work: beside one other
# busy process on two cores, training took 8 to 20 times longer. A short spin costs nothing alone.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
