// An extension module that takes 0.1 s to initialise. It does not say that it can do without the GIL, unless built
// with WITHOUT_GIL.
#include <Python.h>
#include <unistd.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "slow_extension"};

PyMODINIT_FUNC PyInit_slow_extension(void) {
    PyObject *module = PyModule_Create(&definition);
    usleep(100000);
#ifdef WITHOUT_GIL
    PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
#endif
    return module;
}
