"""Uses the methods and operators of torch's tensors in all the ways a program can."""

import sys

import torch
from torch import Tensor

rounds, total = int(sys.argv[1]), 0.0
by_name = Tensor.relu
for n in range(rounds):
    a, b = Tensor(float(n)), Tensor(2.0)
    c = a + b  # __add__ through the type's slot
    d = a.relu().dot(b)
    e = by_name(d).sum(c, b)  # before 3.11, a call with keywords looks a bound method up
    total += e.item() + getattr(a, "sum")().item()
    try:
        a.fail()
    except ValueError as error:
        total += len(str(error))
    try:
        a + "text"
    except TypeError:
        total += 1
print(total, type(c).__name__, Tensor.dot is torch._C.TensorBase.dot, a.dot.__name__)
