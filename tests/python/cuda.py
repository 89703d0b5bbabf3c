"""Launches kernels through the CUDA driver, which is a test double: so many decode steps, a copy before each.

A second argument says how it ends: `leave` by os._exit with status 3, `fork` does all in a forked child, which ends so.
"""

import ctypes
import os
import sys

cuda = ctypes.CDLL("libcuda.so.1")


def load(stream, target, source):
    assert cuda.cuMemcpyHtoDAsync_v2(ctypes.c_uint64(target), source, ctypes.c_size_t(64), stream) == 0


def decode(kernel, stream):
    one, none = ctypes.c_uint(1), ctypes.c_void_p()
    block = ctypes.c_uint(128)
    assert cuda.cuLaunchKernel(kernel, one, one, one, block, one, one, ctypes.c_uint(0), stream, none, none) == 0


def main(steps):
    assert cuda.cuInit(0) == 0
    context, kernel = ctypes.c_size_t(), ctypes.c_size_t()
    assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0
    assert cuda.cuModuleGetFunction(ctypes.byref(kernel), ctypes.c_size_t(0), b"_Z9addKernelPfS_i") == 0
    stream = ctypes.c_size_t(0)
    source = ctypes.create_string_buffer(64)
    target = ctypes.c_uint64()
    assert cuda.cuMemAlloc_v2(ctypes.byref(target), ctypes.c_size_t(64)) == 0
    for _ in range(steps):
        load(stream, target.value, source)
        decode(kernel, stream)
        assert cuda.cuCtxSynchronize() == 0


how = sys.argv[2] if len(sys.argv) > 2 else ""
if how == "fork" and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
main(int(sys.argv[1]))
if how:
    os._exit(status=3)
