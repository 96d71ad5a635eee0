#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What bindings/python/asyncpf.py says of structs, constants and functions is what the C compiler
says of the header, and the binding has all of it but what is listed here.

usage: python_layout_test.py SOURCE_FOLDER COMPILER…
"""
import ctypes
import pathlib
import sys
import tempfile

import asyncpf
import header

# Constants by their beginning, and the class that has them.
ENUMS = {
    "APF_FAULTS_": asyncpf.Faults,
    "APF_ABI_": asyncpf.Abi,
    "APF_IO_": asyncpf.Io,
    "APF_EVENT_": asyncpf.Event,
    "APF_TRACE_": asyncpf.Trace,
    "APF_SLOT_": asyncpf.Slot,
    "APF_BLOCK_": asyncpf.Block,
    "APF_UNIT_": asyncpf.Unit,
    "APF_KIND_": asyncpf.Kind,
    "APF_SCOPE_": asyncpf.Scope,
}
CONSTANTS = {"APF_GRACE_AUTO": asyncpf.GRACE_AUTO, "APF_CPUID_FIRST": asyncpf.APF_CPUID_FIRST,
             "APF_NOBODY": asyncpf.APF_NOBODY}
KVM = ["KVM_CREATE_VM", "KVM_GET_VCPU_MMAP_SIZE", "KVM_GET_SUPPORTED_CPUID", "KVM_CREATE_VCPU",
       "KVM_SET_USER_MEMORY_REGION", "KVM_CREATE_IRQCHIP", "KVM_SET_CPUID2", "KVM_EXIT_INTR"]
KVM_STRUCTS = {"kvm_userspace_memory_region": ["slot", "flags", "guest_phys_addr", "memory_size",
                                               "userspace_addr"],
               "kvm_run": ["exit_reason"], "kvm_cpuid2": [], "kvm_cpuid_entry2": []}
# Counters go by their names, which the library tells.
LEFT_OUT_STRUCTS = {"apf_counters", "apf_stats", "apf_vcpu_stats"}
LEFT_OUT = {
    "apf_config_init": "knows the first header's members alone",
    "apf_stats_get": "for programs of version 0.1",
    "apf_vcpu_stats_get": "for programs of version 0.1",
    "apf_kvm_run": "apf_vcpu_run with errno",
}
SCALARS = {
    "void": None,
    "int": ctypes.c_int,
    "unsigned": ctypes.c_uint,
    "size_t": ctypes.c_size_t,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "char": ctypes.c_char,
}


def python_type(c):
    """The type of ctypes for a type of C."""
    if isinstance(c, header.Function):
        return ctypes.CFUNCTYPE(python_type(c.result), *map(python_type, c.types))
    c = c.replace("const ", "")
    if c.endswith("]"):
        kind, _, count = c[:-1].partition("[")
        return python_type(kind) * int(count)
    if c in ("char *", "void *", "unsigned char *"):
        return ctypes.c_char_p if c == "char *" else ctypes.c_void_p
    if c.endswith(" *"):
        pointed = python_type(c[:-2])
        # A struct that has no members here: its address.
        return ctypes.c_void_p if pointed is None else ctypes.POINTER(pointed)
    if c.startswith("enum "):
        return ctypes.c_uint
    if c.startswith("struct "):
        return getattr(asyncpf, c.split()[1], None)
    return SCALARS[c]


def same(have, want):
    """Of pointers to functions each CFUNCTYPE() is its own type."""
    if have is want:
        return True
    if hasattr(have, "_argtypes_") and hasattr(want, "_argtypes_"):
        return (have._restype_, tuple(have._argtypes_)) == (want._restype_, tuple(want._argtypes_))
    return False


def struct_breaches(structs, facts):
    for struct, members in structs.items():
        mine = getattr(asyncpf, struct, None)
        if mine is None:
            yield f"struct {struct} is missing"
            continue
        fields = dict(mine._fields_)
        if list(fields) != list(members):
            yield f"struct {struct}: {list(fields)}, in C {list(members)}"
            continue
        if ctypes.sizeof(mine) != facts[struct]:
            yield f"struct {struct}: {ctypes.sizeof(mine)} bytes, in C {facts[struct]}"
        for member in members:
            field = getattr(mine, member)
            if (field.offset, field.size) != facts[f"{struct}.{member}"]:
                yield (f"{struct}.{member}: {(field.offset, field.size)}, in C "
                       f"{facts[f'{struct}.{member}']}")
            if isinstance(members, dict) and not same(fields[member],
                                                      python_type(members[member])):
                yield f"{struct}.{member}: {fields[member]}, in C {members[member]}"


def constant_breaches(h, facts):
    for name in h.constants:
        if name.startswith("APF_COUNTER_ID"):
            continue
        value = CONSTANTS.get(name)
        for prefix, enum in ENUMS.items():
            if name.startswith(prefix):
                member = enum.__members__.get(name[len(prefix):])
                value = None if member is None else member.value
        if value != facts[name]:
            yield f"{name}: {value}, in C {facts[name]}"
    for prefix, enum in ENUMS.items():
        for member in enum.__members__:
            if prefix + member not in h.constants:
                yield f"{enum.__name__}.{member}: not in C"
    for name in KVM:
        if getattr(asyncpf, name) != facts[name]:
            yield f"{name}: {getattr(asyncpf, name):#x}, in C {facts[name]:#x}"


def function_breaches(functions):
    for name, f in functions.items():
        want = (python_type(f.result), [python_type(t) for t in f.types])
        have = asyncpf.FUNCTIONS.get(name)
        if (have is None) != (name in LEFT_OUT):
            yield f"{name}: neither in the binding nor left out, or both"
        elif have and have != want:
            yield f"{name}: {have}, in C {f.result} {f.types}"
    for name in asyncpf.FUNCTIONS.keys() - functions.keys():
        yield f"{name}: not in C"


def counter_breaches(h):
    ids = [name[len("APF_COUNTER_ID_"):] for name in h.constants
           if name.startswith("APF_COUNTER_ID_")]
    names = [row.name for row in asyncpf.counter_info()]
    if names != ids or len(names) < 50:
        yield f"counters: {names}, in C {ids}"


def main():
    include = header.include_of(sys.argv[1])
    compiler = sys.argv[2:]
    h = header.read(compiler, include)
    with tempfile.TemporaryDirectory() as folder:
        facts = header.facts(compiler, include, pathlib.Path(folder), h, KVM, KVM_STRUCTS)
    structs = {name: members for name, members in h.structs.items()
               if name not in LEFT_OUT_STRUCTS}
    structs["kvm_userspace_memory_region"] = KVM_STRUCTS["kvm_userspace_memory_region"]
    bad = [*struct_breaches(structs, facts), *constant_breaches(h, facts),
           *function_breaches(h.functions), *counter_breaches(h)]
    if (asyncpf._EXIT_REASON, 4) != facts["kvm_run.exit_reason"]:
        bad.append("kvm_run.exit_reason")
    if (8, asyncpf._CPUID_ENTRY_BYTES) != (facts["kvm_cpuid2"], facts["kvm_cpuid_entry2"]):
        bad.append("struct kvm_cpuid_entry2")
    # That nothing was compared would look the same.
    if (len(structs) < 10 or len(h.functions) < 50 or len(h.inlines) < 5 or
            len(h.constants) < 80):
        bad.append(f"only {len(structs)} structs, {len(h.functions)} functions, {len(h.inlines)} "
                   f"inline, {len(h.constants)} constants were found in the header")
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
