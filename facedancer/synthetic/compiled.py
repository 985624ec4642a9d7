"""How our kernels are compiled: once, kept beside the module (or where `NUMBA_CACHE_DIR` says), and without Python's
checks of division.
"""

import numba

# Kernels that Python calls.
compiled = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True)
# Parts that only kernels call: they need no way in from Python, which halves the time to compile them.
compiled_part = numba.njit(cache=True, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
