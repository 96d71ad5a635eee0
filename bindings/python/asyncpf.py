# SPDX-License-Identifier: Apache-2.0
# One file, longer than 800 lines because it can be copied to where it is used. Test: tests/bindings
"""libasyncpf from Python: the memory of a KVM guest, fetched when it is touched, from files or
from Python functions.

    import asyncpf

    def page(offset, length):
        return bytes([offset // 4096 % 256]) * length

    with asyncpf.VM(vcpus_max=1) as vm:            # or VM(vm_fd, ...) for a VM of one's own
        memory = vm.memory_adopt(0, 2 << 20)       # the guest's RAM: memory[a:b], memory.raw
        vm.source_custom(1 << 20, page).place(0x10000, 1 << 20)
        vm.start()
        vm.memslot(0, 0, 2 << 20)                  # KVM_SET_USER_MEMORY_REGION
        vcpu = vm.vcpu(0)                          # KVM_CREATE_VCPU; then its registers
        while vcpu.run() == asyncpf.EXIT_INTR:     # the exit reason of KVM_RUN
            pass
        print(vm.counters()["faults_total"])

Methods are named as in asyncpf/asyncpf.h, which has what they promise; here is only what Python
adds. What fails raises Error. Any thread may call anything, and all calls let other Python threads
run. close(), which the end of `with` does, kicks the vCPUs and waits for calls that other threads
are in; calls that come later raise ValueError. A source's function and on_event, on_write and
on_thread must not call close().

Needs ctypes only. The library is libasyncpf.so.0, or what ASYNCPF_LIBRARY names.
"""
import atexit
import collections
import contextlib
import ctypes
import enum
import errno
import fcntl
import itertools
import mmap
import os
import queue
import threading
from ctypes import (CFUNCTYPE, POINTER, byref, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint,
                    c_uint32, c_uint64, c_void_p)

__all__ = ["APF_CPUID_FIRST", "APF_NOBODY", "Abi", "Block", "CounterInfo", "EXIT_INTR", "Error",
           "Event", "Faults", "GRACE_AUTO", "Kind", "Memory", "Scope", "Slot", "Source", "Trace",
           "Unit", "VM", "Vcpu", "counter_info", "create_vm", "version"]

# ---- the header: tests/bindings compares all of this with it ----


class Faults(enum.IntEnum):
    BLOCK = 0
    STALL = 1
    KERNEL = 2
    USER = 3


class Abi(enum.IntEnum):
    OFF = 0
    LEGACY = 1
    PF2 = 2
    PF2_STRICT = 3
    INT = 4


class Io(enum.IntEnum):
    AUTO = 0
    URING = 1
    THREADS = 2


class Event(enum.IntEnum):
    PAUSED = 1
    RESUMED = 2


class Trace(enum.IntEnum):
    TOUCH = 1
    TOLD = 2
    HALT = 3
    GO = 4
    READ = 5
    READ_END = 6
    SHOWN = 7
    READY = 8
    TAKEN = 9
    DROPPED = 10
    PAUSED = 11
    RESUMED = 12
    USED = 13
    WITHDRAWN = 14


APF_NOBODY = 0xffffffff  # a step of no vCPU's


class Slot(enum.IntEnum):
    AUTO = 0
    RAM = 1
    ROM = 2
    HOLE = 3


class Block(enum.IntFlag):
    PRESENT = 1
    CHANGED = 2
    ZEROES = 4


class Unit(enum.IntEnum):
    COUNT = 0
    BLOCKS = 1
    BYTES = 2
    NS = 3


class Kind(enum.IntEnum):
    COUNTER = 0
    GAUGE = 1
    PEAK = 2


class Scope(enum.IntEnum):
    VM = 0
    VCPU = 1


GRACE_AUTO = -1
APF_CPUID_FIRST = 0x40000300


class apf_error(ctypes.Structure):
    _fields_ = [("code", c_int), ("text", c_char * 240)]


class apf_trace(ctypes.Structure):
    _fields_ = [("ns", c_uint64), ("gpa", c_uint64), ("bytes", c_uint64), ("kind", c_uint32),
                ("vcpu", c_uint32), ("value", c_uint32)]


class apf_event(ctypes.Structure):
    _fields_ = [("kind", c_uint), ("gpa", c_uint64), ("text", c_char_p)]


class apf_config(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("faults", c_uint),
        ("abi", c_uint),
        ("vcpus_max", c_uint),
        ("block_bytes", c_uint32),
        ("faults_max", c_uint32),
        ("queue_depth", c_uint32),
        ("grace_us", c_int64),
        ("retries_max", c_uint32),
        ("source_timeout_ms", c_uint32),
        ("swap", c_char_p),
        ("swap_wrap", c_char_p),
        ("resident_max", c_uint64),
        ("kick_signal", c_int),
        ("on_event", CFUNCTYPE(None, c_void_p, POINTER(apf_event))),
        ("on_event_ctx", c_void_p),
        ("x2apic_ids", c_int),
        ("memory_max", c_uint64),
        ("pins_are_held", c_int),
        ("on_write", CFUNCTYPE(None, c_void_p, c_uint64, c_uint64)),
        ("on_write_ctx", c_void_p),
        ("on_thread", CFUNCTYPE(None, c_void_p, c_char_p)),
        ("on_thread_ctx", c_void_p),
        ("sigbus_handler", c_int),
        ("read_ahead_bytes", c_uint32),
        ("io", c_uint),
        ("on_trace", CFUNCTYPE(None, c_void_p, POINTER(apf_trace))),
        ("on_trace_ctx", c_void_p),
        ("told_before", c_int),
    ]


class apf_memory(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("gpa", c_uint64), ("bytes", c_uint64), ("fd", c_int),
                ("offset", c_uint64), ("vmm", c_void_p), ("guest", c_void_p)]


class apf_read_request(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("id", c_uint64), ("offset", c_uint64), ("len", c_uint64),
                ("buf", c_void_p), ("urgent", c_int)]


class apf_source_config(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t),
        ("ctx", c_void_p),
        ("bytes", c_uint64),
        ("wrap", c_char_p),
        ("read", CFUNCTYPE(None, c_void_p, POINTER(apf_read_request))),
        ("cancel", CFUNCTYPE(None, c_void_p, c_uint64)),
        ("close", CFUNCTYPE(None, c_void_p)),
    ]


class apf_range(ctypes.Structure):
    _fields_ = [("gpa", c_uint64), ("buf", c_void_p), ("len", c_size_t)]


class apf_wait(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("timeout_ns", c_int64), ("vcpu", c_void_p)]


class apf_counter_row(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("help", c_char_p), ("unit", c_uint), ("kind", c_uint),
                ("scope", c_uint)]


_ERROR = POINTER(apf_error)
_APF = _VCPU = _SOURCE = _RUN = c_void_p
_U64_RET = POINTER(c_uint64)

# What a function returns, and its arguments.
FUNCTIONS = {
    "apf_config_init_sized": (None, [POINTER(apf_config), c_size_t]),
    "apf_open": (c_int, [c_int, POINTER(apf_config), POINTER(_APF), _ERROR]),
    "apf_stop": (None, [_APF]),
    "apf_close": (None, [_APF]),
    "apf_memory_add": (c_int, [_APF, c_uint64, c_uint64, _ERROR]),
    "apf_memory_adopt": (c_int, [_APF, POINTER(apf_memory), _ERROR]),
    "apf_memory_remove": (c_int, [_APF, c_uint64, _ERROR]),
    "apf_memory_hva": (c_void_p, [_APF, c_uint64]),
    "apf_discard": (c_int, [_APF, c_uint64, c_uint64]),
    "apf_source_add": (c_int, [_APF, c_uint64, c_uint64, c_char_p, c_uint64, _U64_RET, _ERROR]),
    "apf_source_custom": (c_int, [_APF, POINTER(apf_source_config), POINTER(_SOURCE), _ERROR]),
    "apf_source_place": (c_int, [_SOURCE, c_uint64, c_uint64, c_uint64, _ERROR]),
    "apf_source_free": (c_int, [_SOURCE]),
    "apf_source_offer": (c_int, [_SOURCE, c_uint64, c_void_p, c_uint64, _U64_RET]),
    "apf_read_done": (c_int, [_SOURCE, c_uint64]),
    "apf_read_zeroes": (c_int, [_SOURCE, c_uint64]),
    "apf_read_failed": (c_int, [_SOURCE, c_uint64, c_int, c_char_p]),
    "apf_slot_set": (c_int, [_APF, c_uint64, c_uint64, c_uint]),
    "apf_msr_filter": (c_int, [_APF, c_void_p, _ERROR]),
    "apf_msr_exits": (c_int, [_APF, c_uint32, _ERROR]),
    "apf_start": (c_int, [_APF, _ERROR]),
    "apf_cpuid_features": (c_uint32, [_APF, c_uint32]),
    "apf_cpuid_leaf": (c_int, [_APF, c_uint32, POINTER(c_uint32)]),
    "apf_cpuid_fill": (c_int, [_APF, c_void_p, c_uint]),
    "apf_read": (c_int, [_APF, c_uint64, c_void_p, c_size_t]),
    "apf_write": (c_int, [_APF, c_uint64, c_void_p, c_size_t]),
    "apf_readv": (c_int64, [_APF, POINTER(apf_range), c_uint, POINTER(apf_wait)]),
    "apf_writev": (c_int64, [_APF, POINTER(apf_range), c_uint, POINTER(apf_wait)]),
    "apf_populate": (c_int, [_APF, c_uint64, c_uint64]),
    "apf_prefetch": (c_int, [_APF, POINTER(apf_range), c_uint]),
    "apf_fill": (c_int, [_APF]),
    "apf_pin": (c_int, [_APF, c_uint64, c_uint64]),
    "apf_unpin": (c_int, [_APF, c_uint64, c_uint64]),
    "apf_hold": (c_int, [_APF, c_uint64, c_uint64]),
    "apf_io_used": (c_uint, [_APF]),
    "apf_release": (None, [_APF, c_uint64, c_uint64]),
    "apf_evict": (c_int, [_APF, c_uint64, _U64_RET, _ERROR]),
    "apf_resident_max_set": (c_int, [_APF, c_uint64, _ERROR]),
    "apf_sigbus": (c_int, [c_void_p, c_void_p]),
    "apf_residency": (c_int, [_APF, c_uint64, c_uint64, c_void_p]),
    "apf_shared_bytes": (c_int64, [_APF]),
    "apf_vcpu_attach": (c_int, [_APF, c_uint, c_int, _RUN, c_uint32, POINTER(_VCPU), _ERROR]),
    "apf_vcpu_detach": (None, [_VCPU]),
    "apf_vcpu_run": (c_int, [_VCPU]),
    "apf_vcpu_kick": (None, [_VCPU]),
    "apf_vcpu_signal_mask": (c_int, [_VCPU, c_void_p, c_size_t]),
    "apf_vcpu_reset": (None, [_VCPU]),
    "apf_vcpu_msr_list": (POINTER(c_uint32), [_APF, POINTER(c_uint)]),
    "apf_vcpu_get_msr": (c_int, [_VCPU, c_uint32, _U64_RET]),
    "apf_vcpu_set_msr": (c_int, [_VCPU, c_uint32, c_uint64]),
    "apf_vcpu_save": (c_size_t, [_VCPU, c_void_p, c_size_t]),
    "apf_vcpu_restore": (c_int, [_VCPU, c_void_p, c_size_t]),
    "apf_vcpu_counters_get": (None, [_VCPU, c_void_p, c_size_t]),
    "apf_pause": (None, [_APF]),
    "apf_resume": (None, [_APF]),
    "apf_is_paused": (c_int, [_APF]),
    "apf_trouble_get": (c_int, [_APF, _ERROR]),
    "apf_counter_info": (POINTER(apf_counter_row), [c_uint]),
    "apf_counters_get": (None, [_APF, c_void_p, c_size_t]),
    "apf_version": (c_char_p, []),
}

# ---- linux/kvm.h ----

KVM_CREATE_VM = 0xae01
KVM_GET_VCPU_MMAP_SIZE = 0xae04
KVM_GET_SUPPORTED_CPUID = 0xc008ae05
KVM_CREATE_VCPU = 0xae41
KVM_SET_USER_MEMORY_REGION = 0x4020ae46
KVM_CREATE_IRQCHIP = 0xae60
KVM_SET_CPUID2 = 0x4008ae90
KVM_EXIT_INTR = EXIT_INTR = 10
_EXIT_REASON = 8  # struct kvm_run: where it is
_CPUID_ENTRIES = 256
_CPUID_ENTRY_BYTES = 40


class kvm_userspace_memory_region(ctypes.Structure):
    _fields_ = [("slot", c_uint32), ("flags", c_uint32), ("guest_phys_addr", c_uint64),
                ("memory_size", c_uint64), ("userspace_addr", c_uint64)]


def _ioctl(fd, request, arg=0):
    while True:
        try:
            return fcntl.ioctl(fd, request, arg)
        except InterruptedError:
            pass


def _kvm_ioctl(request, arg=0):
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        return _ioctl(fd, request, arg)
    finally:
        os.close(fd)


def create_vm():
    """The file descriptor of a VM with KVM's local APICs, IO-APIC and PIC, and nothing else."""
    fd = _kvm_ioctl(KVM_CREATE_VM)
    try:
        _ioctl(fd, KVM_CREATE_IRQCHIP)
    except OSError:
        os.close(fd)
        raise
    return fd


# ---- calls ----


class Error(OSError):
    """What the library refuses or cannot do: errno, and the reason in one line, which is also
    str() of it."""

    def __str__(self):
        return self.strerror


def _load():
    lib = ctypes.CDLL(os.environ.get("ASYNCPF_LIBRARY", "libasyncpf.so.0"))
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


_lib = _load()


def _checked(rc, name):
    if rc < 0:
        raise Error(-rc, f"{name}: {os.strerror(-rc)}")
    return rc


def _call(name, *args):
    return _checked(getattr(_lib, name)(*args), name)


def _call_with_text(name, *args):
    """The same for functions whose last argument is a struct apf_error."""
    e = apf_error()
    rc = getattr(_lib, name)(*args, byref(e))
    if rc < 0:
        raise Error(-rc, e.text.decode(errors="replace"))
    return rc


def _bytes(data):
    """Of anything that is bytes-like; bytes(7) would be seven zeroes."""
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def _address(buffer):
    """Of a writable buffer, and what keeps it there."""
    keep = (c_char * memoryview(buffer).nbytes).from_buffer(buffer)
    return ctypes.addressof(keep), keep


def version():
    """Of the library: "0.2.0"."""
    return _lib.apf_version().decode()


CounterInfo = collections.namedtuple("CounterInfo", "name help unit kind scope")


def counter_info():
    """A CounterInfo for each of the library's counters, in its order."""
    rows = []
    for index in itertools.count():
        row = _lib.apf_counter_info(index)
        if not row:
            return rows
        i = row.contents
        rows.append(CounterInfo(i.name.decode(), i.help.decode(), Unit(i.unit), Kind(i.kind),
                                Scope(i.scope)))
    return rows


def _counters(function, handle):
    names = [row.name for row in counter_info()]
    values = (c_uint64 * len(names))()
    function(handle, values, ctypes.sizeof(values))
    return dict(zip(names, values))


class _Guard:
    """Entered by each call that needs the VM; close waits for those inside, and refuses others."""

    def __init__(self):
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    def __enter__(self):
        with self._changed:
            if self._closed:
                raise ValueError("the VM is closed")
            self._inside += 1

    def __exit__(self, *_):
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self):
        """False: somebody has closed it already."""
        with self._changed:
            first, self._closed = not self._closed, True
            return first

    def wait(self):
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)


# ---- configuration ----


def _option(name, kind, value):
    """What goes into the struct for config.name = value."""
    words = {"faults": Faults, "abi": Abi, "io": Io}.get(name)
    if words and isinstance(value, str):
        return words[value.upper().replace("-", "_")]
    if kind is c_char_p:
        return None if value is None else os.fsencode(value)
    if name == "on_event" and value is not None:
        return kind(lambda _, e: value(Event(e.contents.kind), e.contents.gpa,
                                       (e.contents.text or b"").decode(errors="replace")))
    if name == "on_trace" and value is not None:
        return kind(lambda _, t: value(Trace(t.contents.kind), t.contents.ns, t.contents.vcpu,
                                       t.contents.gpa, t.contents.bytes, t.contents.value))
    if name == "on_write" and value is not None:
        return kind(lambda _, gpa, length: value(gpa, length))
    if name == "on_thread" and value is not None:
        return kind(lambda _, thread: value(thread.decode()))
    return kind() if value is None else value


def _config(options):
    c = apf_config()
    _lib.apf_config_init_sized(byref(c), ctypes.sizeof(c))
    kinds = dict(apf_config._fields_)
    for name, value in options.items():
        if name == "size" or name.endswith("_ctx") or name not in kinds:
            raise TypeError(f"VM has no option {name!r}")
        setattr(c, name, _option(name, kinds[name], value))
    return c


# VMs that are not closed: the library calls what they own until then. Whoever forgets one has it
# closed at exit; a child of fork() has none of the library's threads, and nothing to close.
_open = set()
os.register_at_fork(after_in_child=_open.clear)


@atexit.register
def _close_all():
    for vm in list(_open):
        vm.close()


class VM:
    """The memory of one VM.

    vm_fd: a VM with in-kernel local APICs, which stays the caller's; None: create_vm() makes one.
    Options are the members of struct apf_config: faults, abi and io may be strings ("user",
    "pf2-strict", "threads"), swap a path. on_event(event, gpa, text), on_write(gpa, bytes),
    on_trace(step, ns, vcpu, gpa, bytes, value) and on_thread(name) are called by any thread."""

    def __init__(self, vm_fd=None, **options):
        self._guard = _Guard()
        self._config = _config(options)  # its strings and functions are used later, too
        self._apf = c_void_p()
        self._started = False
        self._vcpus, self._sources, self._memories = [], [], []
        self._own_fd = create_vm() if vm_fd is None else None
        self.fd = self._own_fd if vm_fd is None else vm_fd
        try:
            _call_with_text("apf_open", self.fd, byref(self._config), byref(self._apf))
        except Error:
            self._guard.close()
            self._close_fds()
            raise
        _open.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _close_fds(self):
        for memory in self._memories:
            memory._close_fd()
        for fd in [self._own_fd, *(v._own_fd for v in self._vcpus)]:
            if fd is not None:
                os.close(fd)

    def close(self):
        """Ends everything; may be repeated. Views of memory stay, without what was not there."""
        if not self._guard.close():
            return
        if self._started:
            _lib.apf_stop(self._apf)
        for vcpu in list(self._vcpus):
            vcpu._kick()
        self._guard.wait()
        _lib.apf_close(self._apf)
        for source in self._sources:
            source._end()
        self._close_fds()
        self._memories.clear()
        _open.discard(self)

    def _call(self, name, *args):
        with self._guard:
            return _call(name, self._apf, *args)

    def _call_with_text(self, name, *args):
        with self._guard:
            return _call_with_text(name, self._apf, *args)

    # ---- memory ----

    def memory_add(self, gpa, length):
        """Guest RAM that only the guest sees."""
        self._call_with_text("apf_memory_add", gpa, length)

    def memory_adopt(self, gpa, length, fd=None, offset=0, mapping=None):
        """Guest RAM with a view for Python: a Memory.

        fd: a memfd, None: a new one. mapping: a shared mmap of [offset, offset + length) of it,
        None: a new one. Both of the caller's stay the caller's."""
        own = None
        if fd is None:
            fd = own = os.memfd_create("asyncpf-guest", os.MFD_CLOEXEC)
        try:
            if own is not None:
                os.ftruncate(fd, offset + length)
            if mapping is None:
                mapping = mmap.mmap(fd, length, offset=offset)
            memory = Memory(self, gpa, length, fd, offset, mapping)
        except BaseException:
            if own is not None:
                os.close(own)
            raise
        memory._own_fd = own
        self._memories.append(memory)
        return memory

    def memory_remove(self, gpa):
        self._call_with_text("apf_memory_remove", gpa)

    def memory_hva(self, gpa):
        """The address for KVM's memslot; None: it is no RAM."""
        with self._guard:
            return _lib.apf_memory_hva(self._apf, gpa)

    def memslot(self, slot, gpa, length, flags=0):
        """KVM_SET_USER_MEMORY_REGION of that RAM; length 0 deletes the slot."""
        region = kvm_userspace_memory_region(slot, flags, gpa, length,
                                             self.memory_hva(gpa) if length else 0)
        with self._guard:
            _ioctl(self.fd, KVM_SET_USER_MEMORY_REGION, region)

    def slot_set(self, gpa, length, kind):
        self._call("apf_slot_set", gpa, length, kind)

    def discard(self, gpa, length):
        self._call("apf_discard", gpa, length)

    def source_add(self, gpa, length, uri, offset=0):
        """Puts the source that the URI names behind that memory. Its size."""
        size = c_uint64()
        self._call_with_text("apf_source_add", gpa, length, os.fsencode(uri), offset, byref(size))
        return size.value

    def source_custom(self, size, read, workers=1, wrap=None):
        """A source of `size` bytes in Python: a Source, to be put behind memory with place().

        read(offset, length) returns that many bytes of it, or None for zeroes. What it raises is a
        failed read: with the number of an OSError, else EIO. It is tried again as often as
        retries_max says, then the VM is paused, and the exception is the reason that trouble and
        on_event give. It is called by that many threads, the reads that a vCPU cannot do without
        first; workers=0: by whichever thread wants the memory, at once, which all of the VM then
        waits for. It must not touch guest memory."""
        with self._guard:
            source = Source(self, size, read, workers, wrap)
            self._sources.append(source)
            return source

    # ---- access ----

    def read(self, gpa, length):
        data = bytearray(length)
        self.read_into(gpa, data)
        return bytes(data)

    def read_into(self, gpa, buffer):
        address, keep = _address(buffer)
        self._call("apf_read", gpa, address, ctypes.sizeof(keep))

    def write(self, gpa, data):
        data = _bytes(data)
        self._call("apf_write", gpa, data, len(data))

    def readv(self, ranges, timeout=None, vcpu=None):
        """Into the buffers of (gpa, buffer) pairs. How many bytes; Error if there were none in
        `timeout` seconds (ETIMEDOUT), or until a kick of the vCPU (EINTR)."""
        return self._vector("apf_readv", [(gpa, *_address(buffer)) for gpa, buffer in ranges],
                            timeout, vcpu)

    def writev(self, ranges, timeout=None, vcpu=None):
        """The same to memory, of (gpa, bytes) pairs."""
        # Of a copy, as what cannot be written to has no address that ctypes gives.
        return self._vector("apf_writev", [(gpa, *_address(bytearray(data)))
                                           for gpa, data in ranges], timeout, vcpu)

    def _vector(self, name, ranges, timeout, vcpu):
        vector = (apf_range * len(ranges))(*((gpa, address, ctypes.sizeof(keep))
                                             for gpa, address, keep in ranges))
        wait = apf_wait(ctypes.sizeof(apf_wait), -1 if timeout is None else int(timeout * 1e9))
        with contextlib.ExitStack() as stack:
            if vcpu is not None:
                wait.vcpu = stack.enter_context(vcpu._used())
            return self._call(name, vector, len(ranges), byref(wait))

    def populate(self, gpa, length):
        self._call("apf_populate", gpa, length)

    def pin(self, gpa, length):
        self._call("apf_pin", gpa, length)

    def unpin(self, gpa, length):
        self._call("apf_unpin", gpa, length)

    def hold(self, gpa, length):
        self._call("apf_hold", gpa, length)

    def release(self, gpa, length):
        with self._guard:
            _lib.apf_release(self._apf, gpa, length)

    def evict(self, length=0):
        """Until at most that many bytes are resident. How many are."""
        resident = c_uint64()
        self._call_with_text("apf_evict", length, byref(resident))
        return resident.value

    def set_resident_max(self, length):
        """At most that many bytes are resident from now on; 0: no limit."""
        self._call_with_text("apf_resident_max_set", length)

    def residency(self, gpa, length):
        """bytes with the flags of Block, one for each block."""
        flags = (ctypes.c_ubyte * (length // self._config.block_bytes))()
        self._call("apf_residency", gpa, length, flags)
        return bytes(flags)

    def shared_bytes(self):
        """What the host's page cache has of the files that memory is read from."""
        return self._call("apf_shared_bytes")

    # ---- control ----

    def start(self):
        self._call_with_text("apf_start")
        self._started = True

    def stop(self):
        with self._guard:
            _lib.apf_stop(self._apf)

    def pause(self):
        with self._guard:
            _lib.apf_pause(self._apf)

    def resume(self):
        with self._guard:
            _lib.apf_resume(self._apf)

    @property
    def is_paused(self):
        return bool(self._call("apf_is_paused"))

    @property
    def io(self):
        """What reads and writes files: Io.URING or Io.THREADS."""
        return Io(self._call("apf_io_used"))

    @property
    def trouble(self):
        """Why the VM is paused though nobody asked for it: an Error, to be read; or None."""
        e = apf_error()
        with self._guard:
            rc = _lib.apf_trouble_get(self._apf, byref(e))
        return Error(-rc, e.text.decode(errors="replace")) if rc < 0 else None

    def counters(self):
        """A dict by name. What they are: counter_info()."""
        with self._guard:
            return _counters(_lib.apf_counters_get, self._apf)

    # ---- vCPUs ----

    def cpuid_features(self, eax):
        with self._guard:
            return _lib.apf_cpuid_features(self._apf, eax)

    def cpuid_leaf(self, leaf):
        """(eax, ebx, ecx, edx), or None: it is not the library's."""
        registers = (c_uint32 * 4)()
        with self._guard:
            if _lib.apf_cpuid_leaf(self._apf, leaf, registers) == -errno.ENOENT:
                return None
        return tuple(registers)

    def cpuid(self):
        """A struct kvm_cpuid2 for KVM_SET_CPUID2: what KVM supports and what the library adds."""
        c = bytearray(8 + _CPUID_ENTRIES * _CPUID_ENTRY_BYTES)
        c[0:4] = _CPUID_ENTRIES.to_bytes(4, "little")
        _kvm_ioctl(KVM_GET_SUPPORTED_CPUID, c)
        self._call("apf_cpuid_fill", _address(c)[0], _CPUID_ENTRIES)
        return c

    def msr_filter(self, kvm_msr_filter=None):
        """A struct kvm_msr_filter in a writable buffer, which is copied."""
        address = None if kvm_msr_filter is None else _address(kvm_msr_filter)[0]
        self._call_with_text("apf_msr_filter", address)

    def msr_exits(self, reasons):
        self._call_with_text("apf_msr_exits", reasons)

    def msr_list(self):
        """The registers to save and restore, in the order of restoring."""
        count = c_uint()
        with self._guard:
            return _lib.apf_vcpu_msr_list(self._apf, byref(count))[:count.value]

    def vcpu_attach(self, index, fd, kvm_run, apic_id=None):
        """kvm_run: the mmap of the vCPU. It and fd stay the caller's. A Vcpu."""
        return Vcpu(self, index, fd, kvm_run, index if apic_id is None else apic_id)

    def vcpu(self, index=0):
        """Makes a vCPU that has cpuid(), and attaches it. A Vcpu."""
        with self._guard:
            fd = _ioctl(self.fd, KVM_CREATE_VCPU, index)
            try:
                kvm_run = mmap.mmap(fd, _kvm_ioctl(KVM_GET_VCPU_MMAP_SIZE))
                _ioctl(fd, KVM_SET_CPUID2, self.cpuid())
                vcpu = self.vcpu_attach(index, fd, kvm_run)
            except BaseException:
                os.close(fd)
                raise
            vcpu._own_fd = fd
            return vcpu


class Memory:
    """Guest RAM that Python has a view of, by offsets from its beginning. memory[5],
    memory[0:4096] and memory[8:12] = b"four" are apf_read and apf_write: what is absent is waited
    for, while other threads run.

    raw is the view itself, a memoryview, for system calls (os.preadv, recv_into). Where Python
    touches an absent page through it, no Python thread runs until the page is there; that is for
    ever if a source in Python is to bring it, and SIGBUS after stop() or during close(). hold()
    has a part of it that is present. raw may be kept when the VM is closed."""

    def __init__(self, vm, gpa, length, fd, offset, mapping):
        self._vm = vm
        self._own_fd = None
        self._mapping = mapping
        address, self._keep = _address(mapping)
        if ctypes.sizeof(self._keep) < length:
            raise ValueError("the mapping is shorter than the memory")
        part = apf_memory(ctypes.sizeof(apf_memory), gpa, length, fd, offset, address)
        vm._call_with_text("apf_memory_adopt", byref(part))
        self.gpa, self.fd, self.offset = gpa, fd, offset
        self.guest = part.guest  # the address for KVM's memslot, never to be touched
        self._length = length

    def __len__(self):
        return self._length

    def _range(self, key):
        start, stop, step = key.indices(self._length)
        if step != 1:
            raise ValueError("only whole ranges")
        return start, max(stop - start, 0)

    def _at(self, index):
        if not -self._length <= index < self._length:
            raise IndexError("outside of the memory")
        return index % self._length

    def __getitem__(self, key):
        if not isinstance(key, slice):
            at = self._at(key)
            return self[at:at + 1][0]
        start, length = self._range(key)
        return self._vm.read(self.gpa + start, length)

    def __setitem__(self, key, data):
        if not isinstance(key, slice):
            at = self._at(key)
            key, data = slice(at, at + 1), bytes([data])
        start, length = self._range(key)
        data = _bytes(data)
        if len(data) != length:
            raise ValueError(f"{len(data)} bytes for {length}")
        self._vm.write(self.gpa + start, data)

    @property
    def raw(self):
        return memoryview(self._mapping).cast("B")[:self._length]

    @contextlib.contextmanager
    def hold(self, offset=0, length=None):
        """A memoryview of [offset, offset + length) that is present, and stays so, until the end
        of `with`."""
        if length is None:
            length = self._length - offset
        self._vm.hold(self.gpa + offset, length)
        try:
            with self.raw[offset:offset + length] as view:
                yield view
        finally:
            self._vm.release(self.gpa + offset, length)

    def remove(self):
        """apf_memory_remove of it; its memslot is gone already."""
        self._vm.memory_remove(self.gpa)
        self._vm._memories.remove(self)
        self._close_fd()

    def _close_fd(self):
        if self._own_fd is not None:
            os.close(self._own_fd)
            self._own_fd = None


# What a worker is to do: a read, or, if it is None, to end. Sorted by what goes first.
_Job = collections.namedtuple("_Job", "rank number read")


class Source:
    """A page source in Python: VM.source_custom."""

    def __init__(self, vm, size, read, workers, wrap):
        self._vm, self._function = vm, read
        self._handle = c_void_p()
        self._numbers = itertools.count()
        self._jobs = queue.PriorityQueue()
        self._waiting = set()  # ids of reads that no worker has begun
        kinds = dict(apf_source_config._fields_)
        self._config = apf_source_config(
            size=ctypes.sizeof(apf_source_config), bytes=size,
            wrap=None if wrap is None else os.fsencode(wrap),
            read=kinds["read"](self._read_queued if workers else self._read_now),
            cancel=kinds["cancel"](self._cancelled))
        _call_with_text("apf_source_custom", vm._apf, byref(self._config), byref(self._handle))
        self._workers = [threading.Thread(target=self._work, name="asyncpf-source", daemon=True)
                         for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    def place(self, gpa, length, offset=0):
        """Puts it behind that memory."""
        with self._vm._guard:
            _call_with_text("apf_source_place", self._handle, gpa, length, offset)
        return self

    def offer(self, offset, data):
        """What came along unasked. How many bytes were taken."""
        data = _bytes(data)
        taken = c_uint64()
        with self._vm._guard:
            _call("apf_source_offer", self._handle, offset, data, len(data), byref(taken))
        return taken.value

    def _end(self):
        """After apf_close."""
        for _ in self._workers:
            self._jobs.put(_Job(2, next(self._numbers), None))
        for worker in self._workers:
            worker.join()
        _lib.apf_source_free(self._handle)

    # ---- called by the library: a read that is never answered would be waited for ----

    def _read_now(self, _, pointer):
        r = pointer.contents
        self._answer(r.id, r.offset, r.len, r.buf)

    def _read_queued(self, _, pointer):
        r = pointer.contents
        try:
            self._waiting.add(r.id)
            self._jobs.put(_Job(0 if r.urgent else 1, next(self._numbers),
                                (r.id, r.offset, r.len, r.buf)))
        except BaseException as e:
            self._fail(r.id, e)
            raise

    def _cancelled(self, _, read_id):
        if self._take(read_id):
            _lib.apf_read_failed(self._handle, read_id, -errno.ECANCELED, None)

    def _take(self, read_id):
        """Whoever takes it has to answer it."""
        try:
            self._waiting.remove(read_id)
        except KeyError:
            return False
        return True

    # ---- answering ----

    def _work(self):
        while True:
            job = self._jobs.get()
            if job.read is None:
                return
            if self._take(job.read[0]):
                self._answer(*job.read)

    def _answer(self, read_id, offset, length, buf):
        try:
            data = self._function(offset, length)
            if data is None:
                _lib.apf_read_zeroes(self._handle, read_id)
                return
            data = _bytes(data)
            if len(data) != length:
                raise ValueError(f"the source gave {len(data)} bytes, not {length}")
            ctypes.memmove(buf, data, length)
        except Exception as e:
            self._fail(read_id, e)
        except BaseException as e:
            self._fail(read_id, e)
            raise
        else:
            _lib.apf_read_done(self._handle, read_id)

    def _fail(self, read_id, e):
        code = e.errno if isinstance(e, OSError) and e.errno else errno.EIO
        why = " ".join(f"{type(e).__name__}: {e}".split())
        _lib.apf_read_failed(self._handle, read_id, -code, why.encode(errors="replace"))


class Vcpu:
    """One vCPU: VM.vcpu or VM.vcpu_attach. fd and kvm_run, its mmap, are for KVM's own calls."""

    def __init__(self, vm, index, fd, kvm_run, apic_id):
        self._vm, self.index, self.fd, self.kvm_run = vm, index, fd, kvm_run
        self._own_fd = None
        self._handle = c_void_p()
        self._detaching = threading.Lock()  # a kick does not wait, and comes from anywhere
        address, self._keep = _address(kvm_run)
        with vm._guard:
            _call_with_text("apf_vcpu_attach", vm._apf, index, fd, address, apic_id,
                            byref(self._handle))
            vm._vcpus.append(self)

    @contextlib.contextmanager
    def _used(self):
        with self._vm._guard:
            if not self._handle:
                raise ValueError("the vCPU is detached")
            yield self._handle

    def run(self):
        """KVM_RUN. The exit reason; EXIT_INTR: a kick, or a signal. One thread at a time."""
        with self._used() as handle:
            rc = _lib.apf_vcpu_run(handle)
        if rc != -errno.EINTR:
            _checked(rc, "apf_vcpu_run")
        return self.exit_reason

    @property
    def exit_reason(self):
        return int.from_bytes(self.kvm_run[_EXIT_REASON:_EXIT_REASON + 4], "little")

    def _kick(self):
        with self._detaching:
            if self._handle:
                _lib.apf_vcpu_kick(self._handle)

    def kick(self):
        with self._used():
            self._kick()

    def detach(self):
        """No other thread may be in a call of it."""
        with self._used() as handle, self._detaching:
            self._handle = c_void_p()
            _lib.apf_vcpu_detach(handle)

    def reset(self):
        with self._used() as handle:
            _lib.apf_vcpu_reset(handle)

    def signal_mask(self, signals):
        """The signals that are blocked inside KVM_RUN; None: those of the thread."""
        mask = None
        if signals is not None:
            mask = sum(1 << (s - 1) for s in set(signals)).to_bytes(8, "little")
        with self._used() as handle:
            _call("apf_vcpu_signal_mask", handle, mask, 8 if mask else 0)

    def get_msr(self, msr):
        value = c_uint64()
        with self._used() as handle:
            _call("apf_vcpu_get_msr", handle, msr, byref(value))
        return value.value

    def set_msr(self, msr, value):
        with self._used() as handle:
            _call("apf_vcpu_set_msr", handle, msr, value)

    def save(self):
        with self._used() as handle:
            state = (c_char * _lib.apf_vcpu_save(handle, None, 0))()
            length = _lib.apf_vcpu_save(handle, state, len(state))
            return state.raw[:length]

    def restore(self, state):
        with self._used() as handle:
            state = _bytes(state)
            _call("apf_vcpu_restore", handle, state, len(state))

    def counters(self):
        """Those of scope VCPU; others are 0."""
        with self._used() as handle:
            return _counters(_lib.apf_vcpu_counters_get, handle)
