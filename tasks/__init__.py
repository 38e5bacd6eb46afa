"""Stages, one module each.

This package is imported before torch, which is why a variable is set here, and why a stage of a run hands
over to a process that has torch already.
"""

import os
import sys

# OpenMP threads that spin for long while they wait take the cores from whoever could work: beside one other
# busy process on two cores, training took 8 to 20 times longer. A short spin costs nothing alone.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

if "MIPRIV_WARM" in os.environ:
    from tasks.engine import warm

    warm.hand_over(sys.orig_argv)
