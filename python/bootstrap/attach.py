# Run by a Python 3.14 or later that was asked to (sys.remote_exec); RUN and NAME stand above.
# Says in a file what became of it, and changes nothing that the program can see.
def _attach(run, name):
    import os

    try:
        os.rename(run + "/attach.wanted", run + "/attach.taken")
    except OSError:
        return  # the recorder has not waited
    reason = None
    try:
        import sys
        from importlib.util import module_from_spec, spec_from_file_location

        full = "inferscope._inferscope"
        module = sys.modules.get(full)
        if module is None:
            spec = spec_from_file_location(full, run + "/python/inferscope/_inferscope.abi3.so")
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            sys.modules[full] = module
        if "t" in getattr(sys, "abiflags", ""):
            reason = "it is a free-threaded build"
        elif not module.start(run, name):
            reason = "the probe could not start"
        elif not [entry for entry in os.listdir(run) if entry.startswith("%d-" % os.getpid())]:
            reason = "it has been recorded before, and one process can be traced once"
        else:
            package = sys.modules.get("inferscope")
            if package is not None:  # the program's own, whose scopes did nothing so far
                package._probe = module
    except Exception as error:
        reason = str(error)
    said = os.open(run + "/attach.tmp", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(said, (reason or "").encode("utf-8", "replace"))
    os.close(said)
    os.rename(run + "/attach.tmp", run + "/attach.done")


_attach(RUN, NAME)
