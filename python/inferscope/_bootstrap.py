"""Starts the recording of this interpreter; called by sitecustomize before the program runs."""

import os
import sys


def start(run):
    """Begin; returns None, or why this process is not recorded."""
    from inferscope import _inferscope

    if not _inferscope.start(run, _name()):
        return "the probe could not start (see above)"
    if "CUDA_INJECTION64_PATH" in os.environ or "ROCP_TOOL_LIBRARIES" in os.environ:
        os._exit = _inferscope._exit  # what forked children of multiprocessing end with
    if sys.version_info < (3, 12):
        import atexit

        atexit.register(_finish)
    return None


def _name():
    """The program's base name: a script's, or a module's after -m."""
    args = list(getattr(sys, "orig_argv", ()))
    if not args:
        try:
            with open("/proc/self/cmdline", "rb") as line:
                args = [os.fsdecode(arg) for arg in line.read().split(b"\0")[:-1]]
        except OSError:
            args = list(getattr(sys, "argv", ()))
    takes_value = {"-W", "-X", "--check-hash-based-pycs"}
    at = 1
    while at < len(args):
        arg = args[at]
        if arg in takes_value:
            at += 2
            continue
        if arg.startswith("-") and not arg.startswith("--") and len(arg) > 1:
            for flag in ("m", "c"):
                place = arg.find(flag, 1)
                if place > 0 and not arg.startswith(("-W", "-X")):
                    if flag == "c":
                        code = arg[place + 1 :] or (args[at + 1] if at + 1 < len(args) else "")
                        if code.startswith("from multiprocessing."):  # what spawn starts its children with
                            return code.split()[1]
                        return "python -c"
                    return arg[place + 1 :] or (args[at + 1] if at + 1 < len(args) else "python")
            at += 1
            continue
        if arg.startswith("--"):
            at += 1
            continue
        return os.path.basename(arg) or "python"
    return "python"


def _finish():
    """Say so if the program put its own profile function in the place of ours."""
    from inferscope import _inferscope

    before = _inferscope.seen()
    (lambda: None)()
    if _inferscope.seen() == before:
        _inferscope.note(
            "the program set a profile function of its own (cProfile does, before Python 3.12); "
            "from then on its main thread's calls are not in this trace"
        )
