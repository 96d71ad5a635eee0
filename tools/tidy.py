# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of the source tree that a machine can check, and prints
`file:line: what, why` for each breach.

usage: tools/tidy [--root FOLDER] [--commits N] [--reflow]

--reflow breaks Markdown that is too wide anew, and checks then. The tables below are the rules;
those of text are in tidy_documents.py. Some are heuristics: they read C without a compiler. Where
one is wrong about good code, mend the rule here, not the code.
Test: tests/unit/tidy_test.py feeds each rule a breach.
"""
import argparse
import ast
import fnmatch
import os
import pathlib
import re
import subprocess

import tidy_documents

# ---- who may include what (folders of src/; `public` is <asyncpf/asyncpf.h>) ----
LIB_MAY = {"abi", "base", "port", "rights", "engine", "guest", "host", "mem", "io", "source",
           "work", "kvm", "net", "public"}
MAY_INCLUDE = {
    "abi": set(),
    "base": set(),
    "port": {"abi", "base"},
    "rights": {"base"},
    "engine": {"abi", "base"},
    "guest": {"abi", "base"},
    "host": {"abi", "base", "port", "engine"},
    "mem": {"base", "port", "rights"},
    "io": {"base", "port", "rights"},
    "kvm": {"abi", "base", "port", "rights"},
    "source": {"base", "port"},
    "work": {"base", "port"},
    "image": {"base", "port", "source"},
    "net": {"base", "port", "source"},
    "lib": LIB_MAY,
    "pager": {"base", "port", "host", "io", "net", "source", "mem", "work"},
    "vmm": {"abi", "base", "kvm", "public"},
    "sandbox": {"base", "io", "kvm", "mem"},
    "sim": {"abi", "base", "port", "engine", "guest", "host", "source", "vmm"},
    "cli": {"abi", "base", "port", "rights", "io", "source", "image", "mem", "kvm", "vmm",
            "pager", "sandbox", "sim", "public"},
}
# Rooms: sub-folders of a large folder, and which others of it each may include. What has no room
# may include every room; a room names "" to include what has none.
ROOMS = {
    "vmm": {
        "memory": set(),
        "boot": {"memory", "chip"},  # chip: ACPI tables name the ports of acpi_pm.h
        "chip": {"memory"},
        "console": {"chip"},
        "disk": set(),
        "virtio": {"memory", "chip", "disk"},
        "control": {"virtio"},  # device_stats.h
        "snap": set(),
        "machine": {"memory", "boot", "chip", "console", "disk", "virtio", "control", "snap"},
        "small": {"memory", "boot", "chip"},
    },
    "cli": {
        "json": set(),
        "probe": {"", "json"},
        "demo": {"", "json"},
        "check": {""},
        "control": {"", "json"},
        "lab": {""},
        "snap": {"", "json", "control"},
        "pager": {"", "json", "control"},
        "run": {"", "json", "probe", "control", "lab", "snap"},
    },
}
WHY_FOLDER = {
    "abi": "the wire format depends on nothing",
    "base": "helpers depend on nothing of ours",
    "engine": "the engine is pure and knows neither driver nor system",
    "guest": "the guest half knows the host only by the ABI",
    "host": "the driver reaches the system through port/ only",
    "vmm": "the VMM uses the library as any other VMM does: no private door",
    "cli": "the command uses the library as any other program does: no private door",
}

# Within src/host a file includes headers that stand before it here, and its own (README there).
HOST_ORDER = ["grace", "pace", "ram", "stream", "host.h", "kick", "block", "trace",
              "budget", "keep", "trouble", "fetch", "read", "show", "ahead", "plan", "touch",
              "outside", "offer", "residency", "swap", "discard", "hold", "evict", "deliver",
              "wait", "msr", "vcpu", "region", "save", "stats", "host.c", "drive"]

# ---- system headers ----
FREESTANDING = {"stdint.h", "stddef.h", "stdbool.h", "stdarg.h", "limits.h", "stdatomic.h"}
HOSTED_C = FREESTANDING | {"stdio.h", "stdlib.h", "string.h", "errno.h", "inttypes.h", "ctype.h"}
SYSTEM_ONLY = {  # folder: the only system headers it may include
    "abi": {"stdint.h"},
    "port": FREESTANDING,
    # string.h for memcpy, memset, memmove, memcmp alone: tools/purity looks at the objects.
    "engine": FREESTANDING | {"string.h"},
    "guest": FREESTANDING | {"string.h"},
    "host": FREESTANDING | {"string.h", "errno.h"},
    "base": HOSTED_C | {"time.h", "unistd.h"},
    "source": HOSTED_C | {"strings.h", "zstd.h", "xxhash.h", "openssl/evp.h", "sys/mman.h"},
}
ONE_USER = {  # header: folders that may use it
    "liburing.h": {"io", "cli"},
    "linux/userfaultfd.h": {"mem", "cli"},
    "linux/kvm.h": {"kvm", "lib", "vmm", "sandbox", "cli"},
    "linux/io_uring.h": {"io", "sandbox"},
    "seccomp.h": {"sandbox"},
    "libnbd.h": {"net"},
    "curl/curl.h": {"net"},
}

BANNED = {
    "strcpy": "no bound; use snprintf",
    "strcat": "no bound; use snprintf",
    "sprintf": "no bound; use snprintf",
    "vsprintf": "no bound; use vsnprintf",
    "gets": "no bound; use fgets",
    "alloca": "unbounded stack; use a fixed array or the heap",
}
# A signal handler is the process's: these are its only way to anything.
MUTABLE = {"src/vmm/memory/guest_touch.c": {"guard", "process"},
           "src/kvm/bus.c": {"catching", "process"},
           # A thread has its number from the kernel, whatever object asks.
           "src/kvm/signals.c": {"tid"},
           # The kernel's: who listens to the probes.
           "src/lib/probes.c": {"asyncpf_any_semaphore"},
           # A signal handler is given no context.
           "src/lib/serve.c": {"locks"},
           "src/sandbox/trap.c": {"process"}}
COLUMNS_MAX = 100
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
README_LINES_MAX = 40
SUBJECT_COLUMNS_MAX = 72
SKIP_FOLDERS = {".git", "cache", "__pycache__"}
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
GUARD = re.compile(r"^[ \t]*#\s*ifndef \w+_H$", re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
C_SUFFIXES = {".c", ".h"}
GENERATED = {"net/module_folder.h"}  # by meson, in the build folder
# What comments and documents cite by a name that docs/abi.md explains, one row each.
NAMES_FILE = "docs/abi.md"
SUBJECTS_ONCE = {"docs/caveats.md"}  # a list of points, each about something else
NAMES_HEADING = "## Names that the code cites"
NAME_ROW = re.compile(r"^\| ([BS]?\d+) \|")
NAME = re.compile(r"(?<![\w.#/`\"-])[BS]\d{1,2}(?![\w.`\"-])")
INVARIANTS = re.compile(r"\b[Ii]nvariants?,? (\d+(?:(?:, ?| and |-)\d+)*)")
SECTION = re.compile(r"\babi\.md,? (?:section )?\d")


class Tidy:
    """Collects breaches; every check_… method is one group of rules."""

    def __init__(self, root):
        self.root = root
        self.breaches = []
        self.includes = {}  # file -> [(line, included file)], only our own
        self.cited = []  # (file, line, name)
        self.documents = tidy_documents.Documents(root, sorted(all_files_of(root)), self.say)

    def say(self, path, line, what, why):
        self.breaches.append(f"{path}:{line}: {what}, {why}")

    # ---- any file ----
    def check_lines(self, path, lines):
        code = path.suffix != ".md"
        for n, line in enumerate(lines, 1):
            if line != line.rstrip():
                self.say(path, n, "trailing white space", "it hides in every later diff")
            if re.match(r"^\t* +\t", line):
                self.say(path, n, "space before a tab", "indentation must not depend on tab width")
            if path.suffix in C_SUFFIXES and re.match(r"^ {8}", line):
                self.say(path, n, "indented with spaces", "C files indent with tabs")
            if path.suffix == ".py" and line.startswith("\t"):
                self.say(path, n, "indented with a tab", "Python files indent with spaces")
            width = len(line.expandtabs(8))
            if code and width > COLUMNS_MAX:
                self.say(path, n, f"{width} columns", f"the limit is {COLUMNS_MAX}")
            if UNFINISHED.search(line):
                self.say(path, n, "mark of unfinished work",
                         "a known gap belongs into docs/caveats.md")

    def check_head(self, path, lines):
        if not any("SPDX-License-Identifier:" in line for line in lines[:3]):
            self.say(path, 1, "no SPDX line in the first three", "each file names its licence")
        if len(lines) > FILE_LINES_MAX and not any(
                f"{FILE_LINES_MAX} lines" in line for line in lines[:20]):
            self.say(path, 1, f"{len(lines)} lines",
                     f"above {FILE_LINES_MAX} a file says at its top why it is not split "
                     f"('longer than {FILE_LINES_MAX} lines because …')")

    def check_python(self, path, text):
        try:
            tree = ast.parse(text)
        except SyntaxError as e:
            self.say(path, e.lineno or 1, "not Python", str(e.msg))
            return
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    self.say(path, node.lineno, f"{node.name} has {length} lines",
                             f"a function has at most {FUNCTION_LINES_MAX}")

    # ---- C ----
    def check_c(self, path, text):
        code = blank_comments_and_strings(text)
        lines = code.splitlines()
        self.check_functions(path, lines)
        guard = GUARD.search(code)
        if path.suffix == ".h" and guard and code[:guard.start()].strip():
            self.say(path, code[:guard.start()].count("\n") + 1, "include guard behind code",
                     "it comes first, or what stands before it is read twice")
        for n, line in enumerate(lines, 1):
            for name, why in BANNED.items():
                if re.search(rf"(?<![\w.>]){name}\s*\(", line):
                    self.say(path, n, f"{name}()", why)
            m = VLA.match(line)
            if m and m.group("type").split()[0] not in NOT_A_TYPE:
                self.say(path, n, f"array of variable length: {m.group('size')}",
                         "unbounded stack; use a fixed array or the heap")
        if path.parts[0] == "src":
            for n, name in mutable_variables(code):
                if name in MUTABLE.get(str(path), ()):
                    continue
                self.say(path, n, f"mutable static or global variable: {name}",
                         "every object hangs from a context argument, so two VMs fit in a process")

    def check_functions(self, path, lines):
        start = None
        for n, line in enumerate(lines, 1):
            if line.rstrip() == "{":
                start = n
            elif line.startswith("}") and start:
                if n - start + 1 > FUNCTION_LINES_MAX:
                    self.say(path, start, f"function of {n - start + 1} lines",
                             f"a function has at most {FUNCTION_LINES_MAX}")
                start = None

    # ---- includes ----
    def check_includes(self, path, lines):
        folder = folder_of(path)
        for n, line in enumerate(lines, 1):
            m = INCLUDE.match(line)
            if not m:
                continue
            quote, name = m.groups()
            if ".." in pathlib.PurePosixPath(name).parts:
                self.say(path, n, f"include of {name}", "no ../: write it from src/")
            elif quote == '"' and path.parts[0] in ("src", "include"):
                self.check_own_include(path, n, folder, name)
            elif quote == "<" and path.parts[0] in ("src", "include"):
                self.check_system_include(path, n, folder, name)

    def check_own_include(self, path, n, folder, name):
        target = pathlib.Path("src") / name
        if name not in GENERATED and not (self.root / target).is_file():
            self.say(path, n, f'include of "{name}"',
                     "there is no such file in src/; includes are written from src/")
            return
        self.includes.setdefault(path, []).append((n, target))
        self.check_edge(path, n, folder, name.split("/")[0])
        self.check_room(path, n, target)
        self.check_host_order(path, n, target)

    def check_system_include(self, path, n, folder, name):
        if name in ("asyncpf/counters.h", "asyncpf/trace.h"):
            return  # a table and nothing else
        if name.startswith("asyncpf/"):
            self.check_edge(path, n, folder, "public")
            return
        if folder == "public":
            if name not in FREESTANDING | {"sys/types.h", "linux/kvm.h"}:
                self.say(path, n, f"include of <{name}>",
                         "an installed header asks for as little as it can")
            return
        only = SYSTEM_ONLY.get(folder)
        if folder == "base" and path.suffix == ".h":
            only = FREESTANDING
        if only is not None and name not in only:
            self.say(path, n, f"include of <{name}> in {folder}",
                     f"{folder} may include only: {', '.join(sorted(only))}")
        elif name in ONE_USER and folder not in ONE_USER[name]:
            self.say(path, n, f"include of <{name}> in {folder}",
                     f"only {', '.join(sorted(ONE_USER[name]))} may")

    def check_host_order(self, path, n, target):
        def rank(p):
            name = p.name if p.name in HOST_ORDER else p.stem
            return HOST_ORDER.index(name) if name in HOST_ORDER else None

        if path.parts[:2] != ("src", "host") or target.parts[:2] != ("src", "host"):
            return
        for p in (path, target):
            if rank(p) is None:
                self.say(path, n, f"{p.name} has no place in the order of src/host",
                         "add it to HOST_ORDER in tools/tidy.py, and to src/host/README.md")
                return
        if rank(target) > rank(path):
            self.say(path, n, f"{path.name} includes {target.name}, which stands above it",
                     "src/host goes one way only: HOST_ORDER in tools/tidy.py")

    def check_edge(self, path, n, folder, target):
        if folder == target:
            return
        if folder == "public":
            self.say(path, n, f"installed header includes {target}",
                     "it must compile where src/ is not")
        elif folder not in MAY_INCLUDE:
            self.say(path, n, f"folder {folder} is unknown",
                     "add it to MAY_INCLUDE in tools/tidy.py")
        elif target not in MAY_INCLUDE[folder]:
            self.say(path, n, f"{folder} includes {target}",
                     WHY_FOLDER.get(folder, "it may include only: " +
                                    (", ".join(sorted(MAY_INCLUDE[folder])) or "nothing")))

    def check_room(self, path, n, target):
        folder, room, other = folder_of(path), room_of(path), room_of(target)
        if folder != folder_of(target) or room == other or not room:
            return
        may = ROOMS.get(folder, {}).get(room)
        if may is None:
            self.say(path, n, f"room {folder}/{room} is unknown",
                     "add it to ROOMS in tools/tidy.py")
        elif other not in may:
            self.say(path, n, f"{folder}/{room} includes {folder}/{other or target.name}",
                     f"of {folder} it may include only: {', '.join(sorted(may)) or 'nothing'}")

    def check_cycles(self):
        state = {}  # file -> 1 on the stack, 2 done

        def visit(path, stack):
            state[path] = 1
            for n, target in self.includes.get(path, []):
                if state.get(target) == 1:
                    ring = stack[stack.index(target):] + [target]
                    self.say(path, n, "include cycle: " + " > ".join(map(str, ring)),
                             "neither header can be understood alone")
                elif target not in state:
                    visit(target, stack + [target])
            state[path] = 2

        for path in sorted(self.includes):
            if path not in state:
                visit(path, [path])

    # ---- whole tree ----
    def check_readmes(self):
        src = self.root / "src"
        for folder in sorted(p for p in src.iterdir() if p.is_dir()) if src.is_dir() else []:
            name = folder.relative_to(self.root) / "README.md"
            if not any(p.suffix in C_SUFFIXES for p in folder.rglob("*")):
                continue
            if not (self.root / name).is_file():
                self.say(name, 1, "missing", "each folder of src/ says what it is for")
                continue
            text = (self.root / name).read_text(encoding="utf-8")
            for room in sorted(p.name for p in folder.iterdir() if p.is_dir()):
                if f"`{room}/`" not in text:
                    self.say(name, 1, f"`{room}/` is missing", "a folder says what its rooms are")
            named = names_in(text)
            for path in sorted(p for p in folder.rglob("*") if p.suffix in C_SUFFIXES):
                if not any(fnmatch.fnmatch(path.name, n) or fnmatch.fnmatch(path.stem, n)
                           for n in named):
                    self.say(name, 1, f"{path.name} is not named",
                             "a folder says what each of its files is for")
            length = len(text.splitlines())
            if length > README_LINES_MAX:
                self.say(name, length, f"{length} lines", f"at most {README_LINES_MAX}")

    def collect_names(self, path, lines):
        for n, line in enumerate(lines, 1):
            for m in NAME.finditer(line):
                self.cited.append((path, n, m.group()))
            for m in INVARIANTS.finditer(line):
                self.cited += [(path, n, number) for number in re.findall(r"\d+", m.group(1))]
            if SECTION.search(line):
                self.say(path, n, "a section by its number",
                         f"sections of {NAMES_FILE} have names, which stay when one is added")

    def check_names(self):
        explained = set()
        file = self.root / NAMES_FILE
        if file.is_file():
            table = file.read_text(encoding="utf-8").partition(NAMES_HEADING)[2]
            explained = {m.group(1) for m in map(NAME_ROW.match, table.splitlines()) if m}
        mutants = pathlib.Path("tests/mutants.txt")
        if (self.root / mutants).is_file():
            self.collect_names(mutants, (self.root / mutants).read_text(
                encoding="utf-8").splitlines())
        for path, n, name in self.cited:
            if name not in explained:
                self.say(path, n, f"{name} is cited", f"no table of {NAMES_FILE} explains it")

    def check_commits(self, count):
        if not (self.root / ".git").exists():
            return
        try:
            out = subprocess.run(
                ["git", "log", "--no-merges", f"-{count}", "--format=%h%x00%s%x00%b%x01"],
                cwd=self.root, capture_output=True, text=True, errors="replace", check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return  # no git program, no commit yet, or not our repository
        for entry in filter(None, (e.strip("\n") for e in out.split("\x01"))):
            commit, subject, body = entry.split("\x00")
            if len(subject) > SUBJECT_COLUMNS_MAX:
                self.say(f"commit {commit}", 1, f"subject of {len(subject)} columns",
                         f"the limit is {SUBJECT_COLUMNS_MAX}")
            if not body.strip():
                self.say(f"commit {commit}", 1, "no body", "a commit says why")

    def check_file(self, path):
        raw = (self.root / path).read_bytes()
        if b"\0" in raw:
            return
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as e:
            self.say(path, 1, "not UTF-8", str(e.reason))
            return
        lines = text.splitlines()
        self.check_lines(path, lines)
        if path.suffix == ".md":
            self.collect_names(path, lines)
            self.documents.check_paths(path, lines)
            self.documents.check_links(path, lines)
            self.documents.check_width(path, lines)
            if path.as_posix() in SUBJECTS_ONCE:
                self.documents.check_subjects(path, lines)
            return
        if path.suffix in C_SUFFIXES | {".S", ".pml"}:
            comments = only_comments(text).splitlines()
            self.collect_names(path, comments)
        else:
            comments = tidy_documents.script_comments(text).splitlines()
        self.documents.check_paths(path, comments)
        self.check_head(path, lines)
        if path.suffix in C_SUFFIXES:
            self.check_c(path, text)
            self.check_includes(path, lines)
        elif path.suffix == ".py" or (lines and lines[0].endswith("python3")):
            self.check_python(path, text)


VLA = re.compile(r"^\s+(?P<type>(?:const\s+|unsigned\s+|struct\s+|enum\s+)*[a-z]\w*)\s+\**\w+"
                 r"\[(?P<size>(?!sizeof)[a-z_][a-z_0-9]*(?:[ .+*/>-]+\w+)*)\]\s*[;=]")
NOT_A_TYPE = {"return", "else", "goto", "case", "sizeof", "extern"}


COMMENT_OR_STRING = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank_comments_and_strings(text):
    """The text with comments, strings and characters blanked out; lines stay where they are."""
    def blank(m):
        if m.group().startswith(('"', "'")):
            return m.group()[0] * 2 + " " * (len(m.group()) - 2)
        return re.sub(r"[^\n]", " ", m.group())

    return COMMENT_OR_STRING.sub(blank, text)


def only_comments(text):
    """The comments of the text; lines stay where they are."""
    parts, end = [], 0
    for m in COMMENT_OR_STRING.finditer(text):
        if not m.group().startswith(('"', "'")):
            parts += ["\n" * text.count("\n", end, m.start()), m.group()]
            end = m.end()
    return "".join(parts)


def statements(code):
    """(line, depth, text) of declarations at file level and of static ones in functions.

    Walks braces: an initialiser or a type's body is passed over, a function's body is
    entered only to look for `static`."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()),
                  code, flags=re.M)
    depth, start, line, begin = 0, 0, 1, 1
    in_body = False
    for i, c in enumerate(code):
        if c == "\n":
            line += 1
        if not code[start:i].strip():
            begin = line
        if c == "{":
            head = code[start:i]
            if depth == 0:
                in_body = "(" in without_attributes(head).split("=")[0]
                if in_body:
                    start = i + 1
            elif in_body and "=" not in head:
                start = i + 1
            depth += 1
        elif c == "}":
            depth -= 1
            if in_body and (depth == 0 or "=" not in code[start:i]):
                start = i + 1
            if depth == 0:
                in_body = False
        elif c == ";" and (depth == 0 or in_body):
            text = code[start:i]
            if depth == 0 or re.match(r"\s*(static|_Thread_local)\b", text):
                yield begin, depth, text
            start = i + 1


def without_attributes(text):
    return re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", " ", text)


def mutable_variables(code):
    """(line, name) of each variable of static storage that is not const."""
    for line, depth, text in statements(code):
        flat = re.sub(r"\s+", " ", without_attributes(text)).strip()
        body = re.match(r"^(.*?)\{.*\}(.*)$", flat)
        if body and "=" not in body.group(1):  # struct … { … } tail
            flat = body.group(1) + " " + body.group(2).strip()
            if not body.group(2).strip():
                continue
        head = flat.split("=")[0].strip()
        if re.match(r"(typedef|extern|_Static_assert|asm|__asm__)\b", head) or not head:
            continue
        pointer = re.search(r"\(\s*\*([^)]*)\)", head)
        if pointer:
            if re.search(r"\bconst\b", pointer.group(1)):
                continue
        elif "(" in head:
            continue  # a function's declaration
        elif re.search(r"\bconst\b", head.rsplit("*", 1)[1] if "*" in head else head):
            continue
        if not pointer and re.match(r"^(struct|union|enum) \w+$", head):
            continue  # forward declaration
        if depth == 0 and not pointer and len(head.split()) < 2:
            continue
        plain = re.sub(r"\[[^\]]*\]", "", pointer.group(1) if pointer else head)
        yield line, plain.split()[-1].lstrip("*") if plain.strip() else head


def names_in(text):
    """What a README names in backquotes, without suffix and folder: `cache*.c`, `drive`."""
    words = (word for span in re.findall(r"`([^`]+)`", text) for word in span.split())
    names = (word.rsplit("/", 1)[-1].removesuffix(".c").removesuffix(".h") for word in words)
    return {name for name in names if name.strip("*")}


def folder_of(path):
    if path.parts[0] == "include":
        return "public"
    return path.parts[1] if path.parts[0] == "src" and len(path.parts) > 2 else None


def room_of(path):
    """The sub-folder of a folder of src/ that holds the file; "": it lies in none."""
    return path.parts[2] if path.parts[0] == "src" and len(path.parts) > 3 else ""


def wanted(root, path):
    """Source, scripts, build files and documents; not data, not the licence itself."""
    if path.name in ("LICENSE", ".gitignore") or path.name.startswith(".git"):
        return False
    if path.suffix in C_SUFFIXES | {".S", ".py", ".sh", ".bash", ".ld", ".1", ".3", ".7", ".md",
                                      ".pml"}:
        return True
    if path.name in ("meson.build", "meson.options", "Makefile"):
        return True
    with (root / path).open("rb") as f:
        return f.read(2) == b"#!"


def all_files_of(root):
    """Every file of the tree but links, build folders and caches."""
    for folder, folders, names in os.walk(root):
        here = pathlib.Path(folder)
        folders[:] = sorted(d for d in folders if d not in SKIP_FOLDERS and not (
            here == root and (d == "build" or d.startswith("build-"))) and not (
            here / d / "meson-private").is_dir())
        for name in sorted(names):
            path = (here / name).relative_to(root)
            if not (here / name).is_symlink():
                yield path


def files_of(root):
    return (path for path in all_files_of(root) if wanted(root, path))


def reflow(root):
    for path in files_of(root):
        if path.suffix == ".md":
            old = (root / path).read_text(encoding="utf-8")
            new = tidy_documents.reflow(old)
            if new != old:
                (root / path).write_text(new, encoding="utf-8")


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--root", type=pathlib.Path, default=here)
    parser.add_argument("--commits", type=int, default=50,
                        help="how many of the last commits are looked at (default 50)")
    parser.add_argument("--reflow", action="store_true",
                        help="breaks the lines of Markdown that is too wide first")
    args = parser.parse_args()
    if args.reflow:
        reflow(args.root.resolve())
    tidy = Tidy(args.root.resolve())
    count = 0
    for path in files_of(tidy.root):
        tidy.check_file(path)
        count += 1
    tidy.check_cycles()
    tidy.check_readmes()
    tidy.check_names()
    tidy.check_commits(args.commits)
    for breach in tidy.breaches:
        print(breach)
    print(f"tidy: {count} files, {len(tidy.breaches)} breaches")
    return 1 if tidy.breaches or not count else 0
