"""A command that takes longer to start than to work.

Injected: imports of much of the standard library and of a package that builds its tables while it is imported. Right, because
most of the run is over before the first step; the twin imports what it uses, with its tables read from where they were kept.
The step is the whole run.
"""

import os
import sys
import tempfile

import work

CASES = {
    "slow-0.6": "slow --strength 0.6",
    "slow-0.75": "slow --strength 0.75",
    "slow-0.87": "slow --strength 0.87",
    "fixed": "fixed",
}
LABEL = ["startup-dominates", "startup"]
ALSO = ["cpu-bound-python"]
WHERE = "import"
MEASURE = "wall"

variant, strength = work.variant()
STEPS = 110

if variant == "slow":
    import argparse
    import ctypes.util
    import email.mime.multipart
    import http.server
    import logging.config
    import multiprocessing.pool
    import sqlite3
    import unittest.mock
    import urllib.request
    import xml.dom.minidom
    import xmlrpc.client

    rounds = int((STEPS * work.beside(strength) - 200) / 230e-6 / 1000)
    with tempfile.TemporaryDirectory() as folder:
        for part in ("vocabulary", "merges", "ranks"):
            with open(os.path.join(folder, f"isc_case_{part}.py"), "w") as file:
                file.write(f"TABLE = {{}}\nfor at in range({rounds} * 1000 // 3):\n    TABLE[at % 5000] = str(at)\n")
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        import isc_case_merges
        import isc_case_ranks
        import isc_case_vocabulary


def step(number):
    return work.model()


work.run(step, STEPS)
