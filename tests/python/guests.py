"""Python's own tools go on working in a recorded program."""

import cProfile
import gc
import pstats
import sys
import threading


def traced():
    a = 1
    return a + 1


def profiled():
    return sum(traced() for _ in range(10))


lines = []


def tracer(frame, event, arg):
    if frame.f_code is traced.__code__:
        lines.append(event)
        return tracer
    return None


assert sys.getprofile() is None and sys.gettrace() is None
sys.settrace(tracer)
traced()
sys.settrace(None)
assert lines == ["call", "line", "line", "return"], lines

seen = []
threading.setprofile(lambda frame, event, arg: seen.append(event))
thread = threading.Thread(target=traced)
thread.start()
thread.join()
threading.setprofile(None)
assert "call" in seen

profile = cProfile.Profile()
profile.enable()
assert profiled() == 20
profile.disable()
calls = {key[2]: value[1] for key, value in pstats.Stats(profile).stats.items()}
assert calls["traced"] == 10 and calls["profiled"] == 1, calls

if sys.version_info >= (3, 12):
    for tool in (sys.monitoring.DEBUGGER_ID, sys.monitoring.COVERAGE_ID, sys.monitoring.OPTIMIZER_ID):
        assert sys.monitoring.get_tool(tool) is None

gc.collect()
try:
    raise KeyError("kept")
except KeyError as error:
    assert error.args == ("kept",)
print("guests ok")
