// A program that has Python in it and runs the script that it is given.
#include <Python.h>
#include <libgen.h>

int main(int argc, char **argv) {
    FILE *script = fopen(argv[1], "r");
    Py_Initialize();
    PyRun_SimpleString("import sys; sys.argv = ['']");
    char command[4096];
    snprintf(command, sizeof command, "sys.path.insert(0, '%s')", dirname(strdup(argv[1])));
    PyRun_SimpleString(command);
    return PyRun_SimpleFile(script, argv[1]);
}
