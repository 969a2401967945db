"""The kernels timed, against TransformerLens and against the arithmetic floor: `make bench`.

Outside the test suite on purpose: a test says whether something is right, and must not depend on
how busy the machine is. `python -m benchmarks --help` lists the choices.
"""
