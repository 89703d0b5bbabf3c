"""A GPU for the cases: the CUDA driver by ctypes, which is a test double where scripts/score runs them.

Kernels have the length they are told to have; copies move 25 GB/s; streams run in order and beside each other.
"""

import ctypes
import os

MODEL = (b"ampere_sgemm_128x64_tn", b"flash_fwd_kernel", b"layer_norm_kernel", b"elementwise_kernel", b"softmax_kernel")


class Device:
    def __init__(self, kernel_us=10.0):
        """Kernels take so long where a launch does not say."""
        os.environ["ISC_DOUBLE_KERNEL_NS"] = str(int(kernel_us * 1e3))
        self.cuda = cuda = ctypes.CDLL("libcuda.so.1")
        cuda.cuLaunchKernel.argtypes = [ctypes.c_size_t] + [ctypes.c_uint] * 7 + [ctypes.c_size_t] + [ctypes.c_void_p] * 2
        cuda.cuMemcpyHtoDAsync_v2.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        cuda.cuMemcpyDtoHAsync_v2.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_size_t]
        cuda.cuStreamSynchronize.argtypes = [ctypes.c_size_t]
        cuda.cuGraphLaunch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
        cuda.cuCtxSetCurrent.argtypes = [ctypes.c_size_t]
        cuda.isc_next_kernel_ns.argtypes = [ctypes.c_uint64]
        cuda.isc_next_kernel_ns.restype = None
        assert cuda.cuInit(0) == 0
        self.context = ctypes.c_size_t()
        assert cuda.cuCtxCreate_v2(ctypes.byref(self.context), 0, 0) == 0
        self.kernels = [self.kernel(name) for name in MODEL]
        self.target = ctypes.c_uint64()
        assert cuda.cuMemAlloc_v2(ctypes.byref(self.target), ctypes.c_size_t(1 << 28)) == 0
        self.host = ctypes.create_string_buffer(64)  # never read or written beyond its start: the double moves nothing

    def enter(self):
        """On a thread of its own, before it uses the device."""
        self.cuda.cuCtxSetCurrent(self.context.value)

    def kernel(self, name):
        handle = ctypes.c_size_t()
        assert self.cuda.cuModuleGetFunction(ctypes.byref(handle), ctypes.c_size_t(0), name) == 0
        return handle.value

    def stream(self):
        handle = ctypes.c_size_t()
        assert self.cuda.cuStreamCreate(ctypes.byref(handle), 0) == 0
        return handle.value

    def launch(self, number, stream=0, us=None):
        """The kernel of that number, of the five of the model in turn."""
        if us is not None:
            self.cuda.isc_next_kernel_ns(int(us * 1e3))
        self.cuda.cuLaunchKernel(self.kernels[number % 5], 64, 1, 1, 128, 1, 1, 0, stream, None, None)

    def graph(self, number, nodes):
        """A graph of so many of one kernel."""
        handle = ctypes.c_size_t()
        assert self.cuda.isc_graph_create(ctypes.byref(handle), ctypes.c_size_t(self.kernels[number % 5]), nodes) == 0
        return handle.value

    def replay(self, graph, stream=0):
        self.cuda.cuGraphLaunch(graph, stream)

    def copy_in(self, size, stream=0):
        self.cuda.cuMemcpyHtoDAsync_v2(self.target.value, self.host, size, stream)

    def copy_out(self, size, stream=0):
        self.cuda.cuMemcpyDtoHAsync_v2(self.host, self.target.value, size, stream)

    def wait(self, stream=0):
        self.cuda.cuStreamSynchronize(stream)

    def layers(self, count, stream=0, us=None):
        """A model's forward pass: so many kernels, and the answer's copy."""
        for number in range(count):
            self.launch(number, stream, us)
        self.copy_out(64, stream)
