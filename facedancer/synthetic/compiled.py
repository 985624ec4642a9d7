"""How our kernels are compiled: once, cached next to the module (or in `NUMBA_CACHE_DIR`), and without Python's checks
of division.
"""

import numba

# Kernels called from Python.
compiled = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)
# Helpers called only from kernels: without an entry point from Python, they compile in half the time.
compiled_part = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
