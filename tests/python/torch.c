/* A package `torch` as far as the probe looks at it: a class in C whose operators and methods are method descriptors, from
 * which Python code derives. Numbers stand for tensors, and every operation computes for a few µs. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    PyObject_HEAD
    double value;
} Tensor;

static double work(double value)
{
    volatile double sum = 0;
    for (int i = 0; i < 4000; i++)
        sum += value;
    return value + 0 * sum;
}

static PyObject *made(PyObject *like, double value)
{
    Tensor *tensor = (Tensor *)Py_TYPE(like)->tp_alloc(Py_TYPE(like), 0);
    if (tensor)
        tensor->value = work(value);
    return (PyObject *)tensor;
}

static int init(PyObject *self, PyObject *args, PyObject *names)
{
    return PyArg_ParseTuple(args, "d", &((Tensor *)self)->value) ? 0 : -1;
}

static double of(PyObject *object)
{
    return PyFloat_Check(object) ? PyFloat_AS_DOUBLE(object) : ((Tensor *)object)->value;
}

static PyObject *add(PyObject *self, PyObject *args, PyObject *names)
{
    PyObject *other;
    if (!PyArg_ParseTuple(args, "O", &other))
        return NULL;
    if (!PyFloat_Check(other) && !PyObject_HasAttrString(other, "relu"))
        return work(1), Py_INCREF(Py_NotImplemented), Py_NotImplemented;
    return made(self, of(self) + of(other));
}

static PyObject *relu(PyObject *self, PyObject *none)
{
    return made(self, of(self) > 0 ? of(self) : 0);
}

static PyObject *dot(PyObject *self, PyObject *other)
{
    return made(self, of(self) * of(other));
}

static PyObject *sum(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    double value = of(self);
    for (Py_ssize_t i = 0; i < count + (names ? PyTuple_GET_SIZE(names) : 0); i++)
        value += of(args[i]);
    return made(self, value);
}

static PyObject *fail(PyObject *self, PyObject *none)
{
    work(1);
    return PyErr_Format(PyExc_ValueError, "%d", (int)of(self));
}

static PyObject *item(PyObject *self, PyObject *none)
{
    return PyFloat_FromDouble(work(of(self)));
}

static PyMethodDef methods[] = {
    {"__add__", (PyCFunction)(void (*)(void))add, METH_VARARGS | METH_KEYWORDS, NULL},
    {"relu", relu, METH_NOARGS, NULL},
    {"dot", dot, METH_O, NULL},
    {"sum", (PyCFunction)(void (*)(void))sum, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"fail", fail, METH_NOARGS, NULL},
    {"item", item, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {{Py_tp_methods, methods}, {Py_tp_init, init}, {0, NULL}};
static PyType_Spec spec = {"torch._C.TensorBase", sizeof(Tensor), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slots};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch._C", NULL, -1, NULL};

PyMODINIT_FUNC PyInit__C(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObject(made, "TensorBase", PyType_FromSpec(&spec)) < 0)
        return NULL;
    return made;
}
