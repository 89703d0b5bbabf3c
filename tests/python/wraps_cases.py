"""Runs numpy's operators and functions over many operands and prints what comes out, one case a line.

    python wraps_cases.py [PROBE RUN_DIR]

With a probe, numpy is wrapped first. The lines of both runs must be equal: values, types, flags, exceptions,
warnings and the reference counts of the operands. Facts of the run itself go to stderr.
"""
import ctypes
import operator
import os
import re
import sys
import threading
import warnings

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402


class Early(np.ndarray):
    """A subclass that exists before the wraps."""


class EarlyNone(np.ndarray):
    __array_ufunc__ = None


if len(sys.argv) > 1:
    wrap = ctypes.PyDLL(sys.argv[1]).inferscope_wrap
    wrap.argtypes = [ctypes.c_char_p]
    wrap.restype = ctypes.c_int
    wrapped = wrap(sys.argv[2].encode())
    print("wrapped:", wrapped, file=sys.stderr)
    if wrapped < 300:
        sys.exit("hardly anything is wrapped")


class Late(np.ndarray):
    """A subclass that is made after them."""


class LateNone(np.ndarray):
    __array_ufunc__ = None


class Adds(np.ndarray):
    def __add__(self, other):
        return ("Adds", type(super().__add__(other)).__name__)

    def __radd__(self, other):
        return ("radd", type(other).__name__)

    def __getitem__(self, key):
        return ("item", super().__getitem__(key))


class Priority(np.ndarray):
    __array_priority__ = 1000.0


class Overrides(np.ndarray):
    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = [x.view(np.ndarray) if isinstance(x, Overrides) else x for x in inputs]
        kwargs.pop("out", None)
        return (ufunc.__name__, method, getattr(ufunc, method)(*plain, **kwargs))


class Refuses(np.ndarray):
    def __array_ufunc__(self, *args, **kwargs):
        return NotImplemented


class Duck:
    """No array, but takes part."""
    __array_priority__ = 5000.0

    def __radd__(self, other):
        return ("Duck.radd", type(other).__name__)

    def __rmatmul__(self, other):
        return ("Duck.rmatmul", type(other).__name__)

    def __rpow__(self, other):
        return ("Duck.rpow", type(other).__name__)

    def __eq__(self, other):
        return "Duck.eq"


class Opaque:
    __array_ufunc__ = None

    def __radd__(self, other):
        return "Opaque.radd"

    def __rtruediv__(self, other):
        return "Opaque.rtruediv"

    def __lt__(self, other):
        return "Opaque.lt"


class Raises:
    def __radd__(self, other):
        raise KeyError("from radd")

    def __add__(self, other):
        raise KeyError("from add")

    def __index__(self):
        raise OverflowError("from index")


class Element:
    """What object arrays hold: comes back into Python from inside a loop of numpy's."""

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        other = getattr(other, "value", other)
        return Element(float(np.sum(np.ones(3) * self.value)) + other)

    __radd__ = __add__

    def __mul__(self, other):
        return NotImplemented

    def __repr__(self):
        return f"Element({self.value})"


def show(value, depth=0):
    kind = type(value).__name__
    if isinstance(value, np.ma.MaskedArray):
        return f"{kind}:{value.dtype}:{value.shape}:{value.tolist()}:{np.ma.getmaskarray(value).tolist()}"
    if isinstance(value, np.ndarray):
        plain = value.view(np.ndarray)
        flags = f"{plain.flags.c_contiguous:d}{plain.flags.writeable:d}{plain.flags.owndata:d}"
        text = plain.tolist() if plain.size <= 64 else (plain.tobytes()[:64].hex(), hash(plain.tobytes()))
        return f"{kind}:{plain.dtype}:{plain.shape}:{flags}:{text!r}"
    if isinstance(value, (tuple, list)) and depth < 4:
        return f"{kind}[{', '.join(show(x, depth + 1) for x in value)}]"
    if isinstance(value, np.generic):
        return f"{kind}:{value.dtype}:{value!r}"
    return f"{kind}:{value!r}"


CASES = 0


def case(name, function, *operands):
    global CASES
    CASES += 1
    operands = [x.copy() if isinstance(x, np.ndarray) else x for x in operands]
    before = [sys.getrefcount(x) for x in operands]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*operands)
            line = show(result)
        except Exception as error:  # every exception is a result here
            result = None
            line = f"!{type(error).__name__}: {error} < {type(error.__cause__).__name__}"
            error = None
    same = [i for i, x in enumerate(operands) if x is result]
    result = None
    after = [sys.getrefcount(x) for x in operands]
    # Counts of objects that the whole program shares (None, small numbers) move on their own.
    counts = [b - a for a, b, x in zip(before, after, operands) if isinstance(x, (np.ndarray, Duck, Opaque))]
    said = [f"{w.category.__name__}: {w.message}" for w in caught]
    line = re.sub("0x[0-9a-f]{6,}", "0x-", line)
    print(name, "|", line, "|", same, counts, "|", [re.sub("0x[0-9a-f]{6,}", "0x-", show(x)) for x in operands], "|",
          [re.sub("0x[0-9a-f]{6,}", "0x-", text) for text in said])


BINARY = [operator.add, operator.sub, operator.mul, operator.mod, divmod, operator.pow, operator.floordiv,
          operator.truediv, operator.lshift, operator.rshift, operator.and_, operator.xor, operator.or_,
          operator.matmul, operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge]
INPLACE = [operator.iadd, operator.isub, operator.imul, operator.imod, operator.ipow, operator.ifloordiv,
           operator.itruediv, operator.ilshift, operator.irshift, operator.iand, operator.ixor, operator.ior,
           operator.imatmul]
UNARY = [operator.neg, operator.pos, operator.abs, operator.invert, bool, int, float, complex, operator.index]

RNG = np.random.default_rng(7)


def arrays():
    for dtype in ("?", "i1", "u1", "i4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16"):
        yield dtype, (RNG.integers(0, 5, 6)).astype(dtype).reshape(2, 3), RNG.integers(1, 5, 3).astype(dtype)
    yield "M8", np.array(["2020-01-01", "2021-02-03"], "M8[D]"), np.array([3, 4], "m8[D]")
    yield "m8", np.array([1, 2], "m8[s]"), np.array([3, 4], "m8[s]")
    yield "U", np.array(["a", "b"]), np.array(["c", "d"])
    yield "V", np.zeros(2, [("x", "i4"), ("y", "f8")]), np.ones(2, [("x", "i4"), ("y", "f8")])
    yield "O", np.array([1, 2.5, "x"], object), np.array([2, 3, "y"], object)
    yield "E", np.array([Element(1), Element(2)], object), np.array([3, Element(4)], object)
    yield "be", np.arange(4, dtype=">i4"), np.arange(1, 5, dtype="<i8")


def operators():
    for label, a, b in arrays():
        for function in BINARY + INPLACE:
            case(f"{function.__name__} {label}", function, a, b)
            case(f"{function.__name__} {label} reversed", function, b, a)
        for function in UNARY:
            case(f"{function.__name__} {label}", function, a)
            case(f"{function.__name__} {label} one", function, a.ravel()[:1].reshape(()))


def partners():
    base = np.arange(1, 5, dtype=float)
    others = [(cls.__name__, base.view(cls)) for cls in
              (Early, EarlyNone, Late, LateNone, Adds, Priority, Overrides, Refuses)]
    others += [("matrix", np.matrix([[1.0, 2.0], [3.0, 4.0]])),
               ("masked", np.ma.masked_array([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 0])),
               ("recarray", np.rec.fromrecords([(1, 2.0), (3, 4.0)], names="a,b")),
               ("chararray", np.char.array(["a", "b", "c", "d"])),
               ("duck", Duck()), ("opaque", Opaque()), ("raises", Raises()), ("list", [1, 2, 3, 4]),
               ("tuple", (4, 3, 2, 1)), ("none", None), ("str", "text"), ("bytes", b"b"), ("int", 3),
               ("big", 2**80), ("neg", -1), ("float", 2.5), ("complex", 1j), ("bool", True), ("dict", {}),
               ("f4", np.float32(1.5)), ("i1", np.int8(100)), ("u8", np.uint64(2**63)), ("nan", np.float64("nan")),
               ("zero", 0), ("zero-d", np.array(2.0)), ("empty", np.array([])), ("wrong", np.arange(3.0)),
               ("column", np.arange(4.0).reshape(4, 1)), ("strided", np.arange(8.0)[::2]), ("range", range(4)),
               ("memoryview", memoryview(b"abcd")), ("datetime", np.datetime64("2020-01-01")),
               ("object", np.array([None, 1, 2, 3], object))]
    for label, other in others:
        for function in BINARY + INPLACE:
            case(f"{function.__name__} array {label}", function, base, other)
            case(f"{function.__name__} {label} array", function, other, base)
            if label != "big":  # 2**80 to itself has no end
                case(f"{function.__name__} {label} itself", function, other, other)
        for function in UNARY:
            case(f"{function.__name__} {label}", function, other)
    for one, a in others[:11]:
        for two, b in others[:11]:
            for function in (operator.add, operator.truediv, operator.matmul, operator.pow, operator.lt, operator.iadd,
                             divmod):
                case(f"{function.__name__} {one} {two}", function, a, b)
    for modulus in (None, 3, base):
        case(f"pow {modulus}", pow, base, 2, modulus)
        case(f"pow none {modulus}", pow, base, base.view(LateNone), modulus)
    case("readonly", operator.iadd, np.broadcast_to(base, (2, 4)), 1)
    int_array = np.arange(4)
    case("unsafe cast", operator.iadd, int_array, 1.5)
    case("unsafe itruediv", operator.itruediv, int_array, 2)
    case("broadcast into", operator.iadd, np.ones(3), np.ones((2, 3)))
    case("explicit", np.ndarray.__add__, base, 1)
    case("explicit refused", np.ndarray.__add__, base, Duck())
    case("unbound", np.ndarray.__matmul__, [1], [2])
    with np.errstate(divide="raise"):
        case("errstate", operator.truediv, base, 0.0)
        case("errstate scalar", operator.truediv, np.float64(1), base * 0)


def items():
    a = np.arange(24).reshape(2, 3, 4)
    keys = [0, -1, 5, (0, 1), (0, 1, 2), (9, 9, 9), slice(None), (slice(None), 1), (Ellipsis, 0), None, True, False,
            [0, 1], [5], [[0, 1], [1, 0]], ([0, 1], [1, 2]), a > 5, a[0] > 5, np.array([True, False]),
            np.array(1), np.int8(1), 1.0, "x", (), (0, 0, 0, 0), Raises(), slice(None, None, -1), slice("a"),
            (slice(0, 2, 0),), np.array([], int), 2**70, [1.5], [[0], [0, 1]]]
    for i, key in enumerate(keys):
        for view in (np.ndarray, Early, Late, Adds, Overrides, LateNone):
            case(f"getitem {i} {view.__name__}", operator.getitem, a.view(view), key)
        case(f"delitem {i}", operator.delitem, a, key)
        for j, value in enumerate((7, [1, 2], "x", None, 2.5, np.zeros(4), Raises(), a[0])):
            case(f"setitem {i} {j}", operator.setitem, a, key, value)
    records = np.array([(1, 2.0), (3, 4.0)], [("a", "i4"), ("b", "f8")])
    for key in ("a", "b", "c", ["a"], ["a", "b"], 0, b"a"):
        case(f"field {key}", operator.getitem, records, key)
        case(f"set field {key}", operator.setitem, records, key, 5)
    masked = np.ma.masked_array(np.arange(6.0), np.arange(6) % 2)
    case("masked item", operator.getitem, masked, slice(1, 4))
    case("masked set", operator.setitem, masked, 2, np.ma.masked)
    case("contains", operator.contains, a, 5)
    case("iterate", lambda x: list(x), a)
    case("unpack", lambda x: (lambda p, q: (q, p))(*x), a)


def functions():
    x, y = np.linspace(0.1, 2, 6).reshape(2, 3), np.arange(1.0, 7).reshape(2, 3)
    for name in sorted(n for n in dir(np) if isinstance(getattr(np, n), np.ufunc)):
        ufunc = getattr(np, name)
        for label, pair in (("f", (x, y)), ("i", (x.astype(int), y.astype(int))), ("late", (x.view(Late), y)),
                            ("ov", (x.view(Overrides), y)), ("no", (x, y.view(Refuses))), ("none", (None, y)),
                            ("bad", (np.ones(3), np.ones(4))), ("O", (x.astype(object), y))):
            case(f"{name} {label}", ufunc, *pair[:ufunc.nin])
        args = (x, y)[:ufunc.nin]
        case(f"{name} out", lambda *a: ufunc(*a, out=(np.empty_like(x),) * ufunc.nout), *args)
        case(f"{name} where", lambda *a: ufunc(*a, where=y > 2, out=(x * 0,) * ufunc.nout), *args)
        case(f"{name} no args", ufunc)
        case(f"{name} keyword", lambda *a: ufunc(*a, nonsense=1), *args)
        case(f"{name} star", lambda *a: ufunc(*a, **{"dtype": "f8"}), *args)
        case(f"{name} reduce", lambda a: ufunc.reduce(a, axis=1), x)
    case("frompyfunc", np.frompyfunc(lambda a, b: a + b, 2, 1), x, y)
    case("vectorize", np.vectorize(lambda a: a * 2), x)
    calls = {
        "concatenate": lambda: np.concatenate([x, y], axis=1), "stack": lambda: np.stack([x, y]),
        "where": lambda: np.where(x > 1, x, y), "einsum": lambda: np.einsum("ij,kj->ik", x, y),
        "dot": lambda: np.dot(x, y.T), "repeat": lambda: np.repeat(x, 2, axis=0), "mean": lambda: np.mean(x, axis=0),
        "argmax": lambda: np.argmax(x), "sort": lambda: np.sort(x[:, ::-1]), "unique": lambda: np.unique([3, 1, 1]),
        "norm": lambda: np.linalg.norm(x), "inv": lambda: np.linalg.inv(np.eye(2)), "sum": lambda: np.sum(x, axis=-1),
        "singular": lambda: np.linalg.inv(np.zeros((2, 2))), "fft": lambda: np.fft.fft(x[0]),
        "outer": lambda: np.outer(x, y), "pad": lambda: np.pad(x, 1), "mismatch": lambda: np.concatenate([x, y[0]]),
        "dispatch": lambda: np.concatenate([x.view(Late), y]), "percentile": lambda: np.percentile(x, 50),
        "like": lambda: np.zeros_like(x, dtype="i4"), "no args": lambda: np.concatenate(),
        "searchsorted": lambda: np.searchsorted([1, 2, 3], 2), "cumsum": lambda: np.cumsum(y),
        "copyto": lambda: np.copyto(x.copy(), "x"), "apply": lambda: np.apply_along_axis(lambda r: r.sum(), 1, x),
        "ma": lambda: np.ma.average(np.ma.masked_less(x, 1)), "clip": lambda: np.clip(x, 0.5, 1),
        "allclose": lambda: np.allclose(x, x), "isin": lambda: np.isin(y, [1, 2]), "triu": lambda: np.triu(np.eye(3)),
        "choice": lambda: np.random.default_rng(1).choice(5, 3), "name": lambda: (np.add.__name__, repr(np.mean)[:14]),
        "map": lambda: list(map(np.exp, [0.0, 1.0])), "bound": lambda: x.sum(axis=0), "sorted": lambda: sorted(y[0] > 2),
    }
    for name, function in calls.items():
        case(f"np {name}", function)


def temporaries():
    """Large temporaries, which numpy works into: the names must keep their values."""
    for dtype in ("f8", "f4", "i8", "c16", "f2"):
        a, b, c = (RNG.integers(1, 9, (300, 300)).astype(dtype) for _ in range(3))
        case(f"chain {dtype}", lambda a, b, c: (a * b + c - a) * b, a, b, c)
        case(f"right {dtype}", lambda a, b, c: a + (b * c), a, b, c)
        case(f"divide {dtype}", lambda a, b, c: (a + b) / c / 2, a, b, c)
        case(f"scalar {dtype}", lambda a, b, c: 2 * (a + 1.5) - 3, a, b, c)
        case(f"big scalar {dtype}", lambda a, b, c: (a + b) * 10**30, a, b, c)
        case(f"bits {dtype}", lambda a, b, c: (a > b) & (b > c) | (a == c), a, b, c)
        case(f"itself {dtype}", lambda a, b, c: (lambda t: (t + t) * t - t)(a + b), a, b, c)
        case(f"kept {dtype}", lambda a, b, c: (lambda t: [t + c, t, t * 2])(a + b), a, b, c)
        case(f"mapped {dtype}", lambda a, b, c: list(map(operator.add, (x * 2 for x in (a, b)), (b, c))), a, b, c)
        case(f"row {dtype}", lambda a, b, c: (a + b) * c[0] + (b * 1)[:, :1], a, b, c)
        case(f"view {dtype}", lambda a, b, c: (a + b)[:200] * c[:200], a, b, c)
        case(f"late {dtype}", lambda a, b, c: (a + b) * c.view(Late), a, b, c)
        case(f"neg {dtype}", lambda a, b, c: -(a * b) + abs(c * 1), a, b, c)
    case("mixed", lambda a, b: (a + a) * b, np.ones((300, 300), "f4"), np.ones((300, 300), "f8"))


def threads():
    """All threads at once, with results apart."""
    results = {}

    def work(seed):
        r = np.random.default_rng(seed).standard_normal((40, 40))
        for _ in range(200):
            r = np.tanh(r @ r.T / 10 + r)
        results[seed] = show(r)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in sorted(results):
        print("thread", seed, results[seed])


operators()
partners()
items()
functions()
temporaries()
threads()
child = os.fork() if hasattr(os, "fork") else None
if child == 0:
    print("child", show(np.ones((50, 50)) @ np.ones((50, 50))))
    sys.stdout.flush()
    os._exit(0)
if child:
    os.waitpid(child, 0)
print("cases:", CASES, file=sys.stderr)
