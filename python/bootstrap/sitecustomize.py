"""First in a recorded Python: begins the recording, then lets the program's own sitecustomize run.

Valid in Python 2.7 and all 3.x. Silent, but for one line on stderr where this Python cannot be recorded.
"""

import os
import sys


def _uncovered(run, reason):
    """Leave word that this process is not recorded; the recorder puts it on the timeline."""
    try:
        path = os.path.join(run, "uncovered-%d.json" % os.getpid())
        with open(path + ".tmp", "w") as out:
            out.write('{"pid": %d, "reason": "%s"}\n' % (os.getpid(), reason))
        os.rename(path + ".tmp", path)
        sys.stderr.write("inferscope: not recorded: %s\n" % reason)
    except Exception:
        pass


def _reason():
    """Why this interpreter cannot be recorded; None if it can."""
    implementation = getattr(getattr(sys, "implementation", None), "name", "cpython")
    version = "%d.%d" % sys.version_info[:2]
    if implementation != "cpython" or hasattr(sys, "pypy_version_info"):
        return "%s is not CPython" % (implementation if implementation != "cpython" else "PyPy")
    if sys.version_info < (3, 9):
        return "Python %s is older than 3.9" % version
    if "t" in getattr(sys, "abiflags", ""):
        return "Python %s is a free-threaded build" % version
    return None


def _begin():
    run = os.environ.get("INFERSCOPE_SPOOL")
    if not run or not os.path.isdir(run):
        return
    reason = _reason()
    if reason is None:
        try:
            from inferscope import _bootstrap

            reason = _bootstrap.start(run)
        except Exception as error:  # the program runs on, whatever is wrong with us
            reason = str(error).replace("\\", "/").replace('"', "'").replace("\n", " ")
    if reason is not None:
        _uncovered(run, reason)


def _next():
    """Run the sitecustomize that this one hides, as if it had been found first."""
    here = os.path.dirname(os.path.abspath(__file__))
    rest = [path for path in sys.path if os.path.abspath(path or ".") != here]
    if sys.version_info < (3, 4):
        import imp

        try:
            found = imp.find_module("sitecustomize", rest)
        except ImportError:
            return
        try:
            imp.load_module("sitecustomize", *found)
        finally:
            if found[0]:
                found[0].close()
        return
    # what importlib.machinery and importlib.util hand on; importing these takes a tenth of an interpreter's start
    import _frozen_importlib
    import _frozen_importlib_external

    spec = _frozen_importlib_external.PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None:
        return
    module = _frozen_importlib.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_begin()
_next()
