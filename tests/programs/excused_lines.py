"""Prints where in a function gilspy and py-spy 0.4.3 are known to give different lines.

    excused_lines.py FILE NAME FIRST_LINE

One JSON list of pairs: gilspy's line and py-spy's. Where an instruction has begun, gilspy's is the
interpreter's own: null for those that have no line, such as COPY_FREE_VARS at the start of a closure.
A frame before its first instruction has the function's first line, as in tracebacks (PyCode_Addr2Line).
"""
import json
import sys


def functions(code):
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from functions(constant)


def own_lines(code):
    """The line of every instruction, by its offset in bytes, as the interpreter sees it."""
    ranges = code.co_lines() if sys.version_info >= (3, 10) else ()
    return {offset: line for start, end, line in ranges for offset in range(start, end, 2)}


def py_spy_line(code, offset, own):
    """The line of an instruction as py-spy sees it."""
    if sys.version_info[:2] == (3, 10):
        return py_spy_line_on_3_10(code, offset)
    # It overlooks that there is no line, and keeps the one before.
    lines = (own[at] for at in range(offset, -1, -2) if own.get(at))
    return next(lines, code.co_firstlineno)


def py_spy_line_on_3_10(code, offset):
    """It leaves out ranges that have no line, which moves all that follow, and takes the first range
    even for a frame that is still before it."""
    line, end = code.co_firstlineno, 0
    for size, step in zip(code.co_linetable[::2], code.co_linetable[1::2]):
        if step == 128:
            continue
        line, end = line + (step - 256 if step > 128 else step), end + size
        if end > offset:
            break
    return line


def excused(code):
    own = own_lines(code)
    pairs = [(line, py_spy_line(code, offset, own)) for offset, line in own.items()]
    # From 3.13 on a frame starts at its first instruction.
    if sys.version_info < (3, 13):
        before = py_spy_line(code, -2, own)
        pairs.append((code.co_firstlineno, before))
    return [(gilspy, py_spy) for gilspy, py_spy in pairs if gilspy != py_spy]


def main():
    path, name, first_line = sys.argv[1:]
    with open(path, "rb") as file:
        module = compile(file.read(), path, "exec")
    print(json.dumps([pair for code in functions(module)
                      if (code.co_name, code.co_firstlineno) == (name, int(first_line))
                      for pair in excused(code)]))


if __name__ == "__main__":
    main()
