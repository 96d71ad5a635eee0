# SPDX-License-Identifier: Apache-2.0
"""The installed header, read for the tests of the bindings: its structs, constants and functions,
as the C compiler's preprocessor leaves them. What they are in memory a C program tells, which is
made from that (facts).

Not a C parser: it knows the declarations that the header has, and says so when there are others.
"""
import collections
import pathlib
import re
import shlex
import subprocess

# name: NAME, or STRUCT.MEMBER of a pointer to a function. types: of the arguments.
Function = collections.namedtuple("Function", "name result types")
# members: name to type, a Function for pointers to functions. inlines: Functions that are in the
# header alone, and no symbols of the library.
Header = collections.namedtuple("Header", "structs opaque constants functions inlines")

POINTER_TO_FUNCTION = re.compile(r"(?P<result>.+?)\(\s*\*\s*(?P<name>\w+)\s*\)\s*\((?P<args>.*)\)$")
INLINE = re.compile(r"static inline ([^;{}]+)\{[^{}]*\}")
FUNCTION = re.compile(r"(?P<result>.+?)\b(?P<name>apf_\w+)\s*\((?P<args>.*)\)$")
VARIABLE = re.compile(r"(?P<type>.+?)\b(?P<names>\w+(?:\s*,\s*\w+)*)\s*(?P<array>\[\d+\])?$")


def preprocessed(compiler, include, macros=False):
    command = [*compiler, "-E", "-dM" if macros else "-P", "-I", include, "-x", "c", "-"]
    return subprocess.run(command, input="#include <asyncpf/asyncpf.h>\n", text=True, check=True,
                          capture_output=True).stdout


def declarations(text):
    """The text up to each `;` that is in no braces."""
    depth, start = 0, 0
    for i, c in enumerate(text):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == ";" and depth == 0:
            yield " ".join(text[start:i].split())
            start = i + 1


def c_type(text):
    """`const struct apf *`: words apart by one space, and each star alone."""
    return " ".join(re.sub(r"([*\[\]])", r" \1 ", text).split())


def function(name, m, typedefs):
    types = []
    for arg in m.group("args").split(","):
        arg = arg.strip()
        if arg in ("void", ""):
            continue
        v = VARIABLE.match(arg)
        # `uint32_t ret[4]` is a pointer.
        kind = v.group("type") + ("*" if v.group("array") else "")
        types.append(typedefs.get(c_type(kind), c_type(kind)))
    result = c_type(m.group("result"))
    return Function(name, typedefs.get(result, result), types)


def members_of(struct, body, typedefs, constants):
    members = {}
    for d in declarations(body):
        enum = re.match(r"enum (?:\w+ )?\{(.*)\} (\w+)$", d)
        pointer = POINTER_TO_FUNCTION.match(d)
        variable = VARIABLE.match(d)
        if enum:
            constants += constants_of(enum.group(1))
            members[enum.group(2)] = f"enum {struct}_{enum.group(2)}"
        elif pointer:
            members[pointer.group("name")] = function(f"{struct}.{pointer.group('name')}",
                                                      pointer, typedefs)
        else:
            kind = c_type(variable.group("type"))
            for name in variable.group("names").split(","):
                members[name.strip()] = typedefs.get(kind, kind) + (variable.group("array") or "")
    return members


def constants_of(body):
    return [item.split("=")[0].strip() for item in body.split(",") if item.strip()]


def read(compiler, include):
    structs, opaque, constants, functions, typedefs = {}, set(), [], {}, {}
    text, inlines = preprocessed(compiler, include), {}
    for prototype in map(FUNCTION.match, map(str.strip, INLINE.findall(text))):
        if prototype:
            name = prototype.group("name")
            inlines[name] = function(name, prototype, typedefs)
    for d in declarations(INLINE.sub("", text)):
        if "apf_" not in d and not re.search(r"\bapf\b", d):
            continue  # the C library's
        struct = re.match(r"struct (apf\w*)(?: \{(.*)\})?$", d)
        enum = re.match(r"enum apf\w* \{(.*)\}$", d)
        typedef = re.match(r"typedef (.+) (\w+)$", d)
        prototype = FUNCTION.match(d)
        if struct and struct.group(2) is None:
            opaque.add(struct.group(1))
        elif struct:
            structs[struct.group(1)] = members_of(struct.group(1), struct.group(2), typedefs,
                                                  constants)
        elif enum:
            constants += constants_of(enum.group(1))
        elif typedef:
            typedefs[typedef.group(2)] = typedef.group(1)
        elif prototype and "{" not in d:
            functions[prototype.group("name")] = function(prototype.group("name"), prototype,
                                                          typedefs)
        else:
            raise ValueError(f"tests/bindings/header.py does not know such a declaration: {d}")
    # Macros that stand for a number.
    for m in re.finditer(r"^#define (APF_\w+) \(?(-?\d|0x)", preprocessed(compiler, include, True),
                         re.M):
        constants.append(m.group(1))
    return Header(structs, opaque - set(structs), constants, functions, inlines)


def facts(compiler, include, folder, header, more=(), more_structs=None):
    """What the C compiler says: "struct" to its size, "struct.member" to (offset, size), constants
    to their value. more, more_structs: of linux/kvm.h."""
    lines = ["#include <asyncpf/asyncpf.h>", "#include <linux/kvm.h>", "#include <stdio.h>",
             "int main(void)", "{"]
    for struct, members in {**header.structs, **(more_structs or {})}.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        for member in members:
            lines.append(f'printf("{struct}.{member} %zu %zu\\n", '
                         f"offsetof(struct {struct}, {member}), "
                         f"sizeof(((struct {struct} *)0)->{member}));")
    for constant in (*header.constants, *more):
        lines.append(f'printf("{constant} %lld\\n", (long long)({constant}));')
    lines += ["return 0;", "}", ""]
    source, program = folder / "facts.c", folder / "facts"
    source.write_text("\n".join(lines), encoding="utf-8")
    subprocess.run([*compiler, "-I", include, "-o", program, source], check=True)
    found = {}
    for line in subprocess.run([program], check=True, capture_output=True,
                               text=True).stdout.splitlines():
        name, *numbers = line.split()
        found[name] = tuple(map(int, numbers)) if len(numbers) > 1 else int(numbers[0])
    return found


def compiler_of(argument):
    return shlex.split(argument)


def include_of(root):
    return pathlib.Path(root) / "include"
