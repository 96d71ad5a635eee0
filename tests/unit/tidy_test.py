#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/tidy and tools/purity: each rule fires on a breach, and good code passes.

usage: tidy_test.py SOURCE_FOLDER
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".").resolve()
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */\n"
UNFINISHED = "TO" + "DO"

GOOD = SPDX + """\
#include "base/types.h"

static const int table[] = {1, 2};
static const char *const names[] = {"a", "b"};
static int (*const hooks[])(void) = {NULL};
enum colour { RED };
struct pair {
\tint a[RED + 2];
\tint (*call)(int);
};
struct later;
extern const int shared;
static int add(int a, int b);
_Static_assert(sizeof(int) == 4, "four");

static int add(int a, int b)
{
\tstatic const int one = 1;
\tconst char *text = "strcpy(a, b); static int x;"; /* sprintf() */
\tstruct pair p = {.a = {1}};
\tchar buf[sizeof(p)];

\tif (a) {
\t\treturn p.a[b];
\t}
\treturn table[a] + one + (text != NULL) + buf[0];
}

const struct pair origin = {
\t.a = {1, 2},
};
"""


class TreeTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        self.write("src/base/types.h", SPDX)

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.startswith("src/"):
            folder, *room = path.relative_to(self.root / "src").parts[:-1]
            readme = self.root / "src" / folder / "README.md"
            if not readme.exists():
                readme.write_text("\n".join(["x", *(f"`{name}/`" for name in room)]) + "\n",
                                  encoding="utf-8")
            if path.suffix in (".c", ".h"):
                with readme.open("a", encoding="utf-8") as out:
                    out.write(f"`{path.stem}`\n")

    def tidy(self):
        done = subprocess.run([SOURCE / "tools/tidy", "--root", self.root], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.stderr, "")
        *breaches, last = done.stdout.splitlines()
        self.assertIn(f"{len(breaches)} breaches", last)
        self.assertEqual(done.returncode, 1 if breaches else 0)
        return breaches

    def fires(self, name, text, *wanted):
        """Exactly one breach, that holds each of `wanted`."""
        self.write(name, text)
        breaches = self.tidy()
        self.assertEqual(len(breaches), 1, breaches)
        for part in (name, *wanted):
            self.assertIn(part, breaches[0])


class Lines(TreeTest):
    def test_good_code_passes(self):
        self.write("src/engine/good.c", GOOD)
        self.assertEqual(self.tidy(), [])

    def test_trailing_space(self):
        self.fires("src/engine/a.c", SPDX + "int f(void); \n", ":2: trailing white space")

    def test_space_before_tab(self):
        self.fires("src/engine/a.c", SPDX + "int f(\n  \tint a);\n", ":3: space before a tab")

    def test_spaces_for_tabs(self):
        self.fires("src/engine/a.c", SPDX + "int f(\n        int a);\n", "indented with spaces")

    def test_tab_in_python(self):
        self.fires("tools/a.py", "# SPDX-License-Identifier: x\nif 1:\n\tpass\n", "with a tab")

    def test_long_line(self):
        self.fires("src/engine/a.c", SPDX + "\t\t/* " + "x" * 79 + " */\n", "101 columns")
        self.fires("src/engine/a.c", SPDX + "/* " + "x" * 95 + " */\n", "101 columns")

    def test_unfinished(self):
        self.fires("docs/a.md", f"{UNFINISHED}: write\n", ":1: mark of unfinished work")

    def test_spdx(self):
        self.fires("src/engine/a.c", "int f(void);\n", "no SPDX line")
        self.write("src/engine/a.c", SPDX)
        self.fires("src/engine/meson.build", "x = 1\n", "no SPDX line")
        self.write("src/engine/meson.build", "# SPDX-License-Identifier: x\n")
        self.fires("tools/script", "#!/bin/sh\n", "no SPDX line")

    def test_file_length(self):
        self.fires("src/engine/a.c", SPDX + "\n" * 800, "801 lines")
        self.write("src/engine/a.c", SPDX + "/* Longer than 800 lines because it is a table. */\n"
                   + "\n" * 800)
        self.assertEqual(self.tidy(), [])

    def test_readme(self):
        self.write("src/engine/a.c", SPDX)
        self.fires("src/engine/README.md", "x\n" * 40 + "`a.c`\n", "41 lines")
        (self.root / "src/engine/README.md").unlink()
        self.assertIn("src/engine/README.md:1: missing", self.tidy()[0])

    def test_file_without_a_word(self):
        self.write("src/engine/a.c", SPDX)
        for text in ("`a.c` what it is", "`a` and more", "`a*`", "`../engine/a.c` `b`"):
            self.write("src/engine/README.md", text + "\n")
            self.assertEqual(self.tidy(), [], text)
        for text in ("a.c", "`b`", "`ab` `ba`", "`*`"):
            self.fires("src/engine/README.md", text + "\n", ":1: a.c is not named")


class Code(TreeTest):
    def test_function_length(self):
        body = "int f(void)\n{\n" + "\tg();\n" * 69 + "}\n"
        self.fires("src/engine/a.c", SPDX + body, ":3: function of 71 lines")
        body = "def f():\n" + "    g()\n" * 70
        self.write("src/engine/a.c", SPDX)
        self.fires("tools/a.py", "# SPDX-License-Identifier: x\n" + body, "f has 71 lines")

    def test_banned(self):
        for call in ("strcpy(a, b)", "strcat(a, b)", "sprintf(a, b)", "gets(a)", "alloca(1)"):
            self.fires("src/cli/a.c", SPDX + f"void f(void)\n{{\n\t{call};\n}}\n",
                       ":4: " + call.split("(", maxsplit=1)[0])
        self.write("src/cli/a.c", SPDX + "void f(void)\n{\n\tsnprintf(a, 1, b);\n}\n")
        self.assertEqual(self.tidy(), [])

    def test_include_guard(self):
        guard = "#ifndef A_H\n#define A_H\n"
        self.fires("src/cli/a.h", SPDX + "struct a;\n" + guard + "#endif\n",
                   ":3: include guard behind code")
        self.write("src/cli/a.h", SPDX + "/* A. */\n" + guard + "struct a;\n#endif\n")
        self.assertEqual(self.tidy(), [])

    def test_variable_length_array(self):
        self.fires("src/cli/a.c", SPDX + "void f(int n)\n{\n\tchar buf[n + 1];\n}\n",
                   ":4: array of variable length")

    def test_mutable_variables(self):
        for text, name in (("static int counter;\n", "counter"),
                           ("int global = 3;\n", "global"),
                           ("struct x *list;\n", "list"),
                           ("static const char *names[] = {\"a\"};\n", "names"),
                           ("static struct x thing = {\n\t.a = 1,\n};\n", "thing"),
                           ("static int (*hook)(void);\n", "hook"),
                           ("static _Thread_local int per_thread;\n", "per_thread"),
                           ("struct y {\n\tint a;\n} instance;\n", "instance"),
                           ("void f(void)\n{\n\tif (1) {\n\t\tstatic int n;\n\t}\n}\n", "n"),
                           ("static char buf[10] __attribute__((aligned(8)));\n", "buf")):
            with self.subTest(text=text):
                self.fires("src/cli/a.c", SPDX + text, f"global variable: {name}")
        self.write("src/cli/a.c", SPDX)
        self.fires("src/vmm/memory/guest_touch.c", SPDX + "static int other;\n", "variable: other")
        self.write("src/vmm/memory/guest_touch.c", SPDX + "static _Thread_local int guard;\n")
        self.assertEqual(self.tidy(), [])


class Includes(TreeTest):
    def setUp(self):
        super().setUp()
        for folder in ("engine", "host", "vmm", "lib", "kvm", "io", "cli"):
            self.write(f"src/{folder}/{folder}.h", SPDX)

    def test_forbidden_folders(self):
        for folder, target in (("engine", "host"), ("base", "engine"), ("host", "kvm"),
                               ("io", "kvm"), ("kvm", "host"), ("vmm", "host"), ("vmm", "lib"),
                               ("lib", "vmm"), ("cli", "engine"), ("lib", "cli")):
            with self.subTest(folder=folder, target=target):
                self.fires(f"src/{folder}/a.c", SPDX + f'#include "{target}/{target}.h"\n',
                           f":2: {folder} includes {target}")
                self.write(f"src/{folder}/a.c", SPDX)

    def test_allowed_folders(self):
        self.write("src/lib/a.c", SPDX + '#include "host/host.h"\n#include "kvm/kvm.h"\n')
        self.write("src/vmm/a.c", SPDX + '#include <asyncpf/asyncpf.h>\n#include "kvm/kvm.h"\n')
        self.write("src/cli/a.c", SPDX + '#include "vmm/vmm.h"\n#include <liburing.h>\n')
        self.assertEqual(self.tidy(), [])

    def test_public_header_in_the_core(self):
        self.fires("src/host/a.c", SPDX + "#include <asyncpf/asyncpf.h>\n", "includes public")

    def test_installed_header_includes_ours(self):
        self.fires("include/asyncpf/a.h", SPDX + '#include "base/types.h"\n',
                   "must compile where src/ is not")

    def test_system_headers(self):
        for folder, header in (("abi", "stddef.h"), ("engine", "stdio.h"), ("host", "pthread.h"),
                               ("port", "time.h"), ("source", "fcntl.h"), ("mem", "liburing.h"),
                               ("io", "linux/kvm.h"), ("kvm", "linux/userfaultfd.h")):
            with self.subTest(folder=folder, header=header):
                self.fires(f"src/{folder}/a.h", SPDX + f"#include <{header}>\n", f"<{header}>")
                self.write(f"src/{folder}/a.h", SPDX)

    def test_parent_and_relative(self):
        self.fires("src/host/a.c", SPDX + '#include "../engine/engine.h"\n', "no ../")
        self.fires("src/host/a.c", SPDX + '#include "host.h"\n', "written from src/")

    def test_cycle(self):
        self.write("src/mem/a.h", SPDX + '#include "mem/b.h"\n')
        self.fires("src/mem/b.h", SPDX + '#include "mem/a.h"\n',
                   "include cycle: src/mem/a.h > src/mem/b.h > src/mem/a.h")

    def test_order_within_host(self):
        self.write("src/host/host.h", SPDX)
        self.write("src/host/vcpu.h", SPDX + '#include "host/host.h"\n')
        self.write("src/host/fetch.h", SPDX + '#include "host/host.h"\n')
        self.write("src/host/vcpu.c", SPDX + '#include "host/fetch.h"\n#include "host/vcpu.h"\n')
        self.write("src/host/host.c", SPDX + '#include "host/vcpu.h"\n')
        self.assertEqual(self.tidy(), [])
        self.fires("src/host/fetch.c", SPDX + '#include "host/vcpu.h"\n',
                   "fetch.c includes vcpu.h, which stands above it")
        self.write("src/host/fetch.c", SPDX)
        self.write("src/host/new.h", SPDX)
        self.fires("src/host/vcpu.c", SPDX + '#include "host/new.h"\n', "no place in the order")

    def test_rooms(self):
        readme = self.root / "src/vmm/README.md"
        readme.write_text("`boot/` `disk/` `memory/` `vmm`\n", encoding="utf-8")
        for room in ("boot", "disk", "memory"):
            self.write(f"src/vmm/{room}/{room}.h", SPDX)
        self.write("src/vmm/boot/a.c", SPDX + '#include "vmm/memory/memory.h"\n')
        self.write("src/cli/a.c", SPDX + '#include "vmm/disk/disk.h"\n')
        self.assertEqual(self.tidy(), [])
        self.fires("src/vmm/boot/a.c", SPDX + '#include "vmm/disk/disk.h"\n',
                   ":2: vmm/boot includes vmm/disk, of vmm it may include only: chip, memory")
        self.fires("src/vmm/boot/a.c", SPDX + '#include "vmm/vmm.h"\n',
                   ":2: vmm/boot includes vmm/vmm.h")
        self.fires("src/vmm/boot/a.c", SPDX + '#include "cli/cli.h"\n', ":2: vmm includes cli")
        (self.root / "src/vmm/boot/a.c").unlink()
        readme.write_text("`vmm` `boot/` `boot.h` `disk/` `disk.h` `memory/` `memory.h` `new/`\n",
                          encoding="utf-8")
        self.fires("src/vmm/new/a.c", SPDX + '#include "vmm/disk/disk.h"\n',
                   ":2: room vmm/new is unknown")

    def test_room_without_a_word(self):
        self.write("src/vmm/boot/a.c", SPDX)
        (self.root / "src/vmm/README.md").write_text("`a` `vmm`\n", encoding="utf-8")
        self.assertEqual(self.tidy(), ["src/vmm/README.md:1: `boot/` is missing, "
                                       "a folder says what its rooms are"])


class Names(TreeTest):
    def setUp(self):
        super().setUp()
        self.write("docs/abi.md",
                   "## Names that the code cites\n| 7 | x |\n| S2 | x |\n| B5 | x |\n")

    def test_explained(self):
        self.write("src/engine/a.c", SPDX + "/* S2, B5; invariant 7. Invariants 7, 7 and 7. */\n"
                   "enum { S9, B9 };\nint f(void);\n\nint f(void)\n{\n\treturn g(\"S8\");\n}\n")
        self.write("docs/a.md", "Hazard S2, `S9`, invariant 7\n")
        self.write("tests/mutants.txt", "why: B5\n")
        self.assertEqual(self.tidy(), [])

    def test_not_explained(self):
        for name, text, cited in (("src/engine/a.c", SPDX + "/* (B1) */\n", "B1"),
                                  ("model/a.pml", SPDX + "/* S3 */\n", "S3"),
                                  ("guests/a.S", SPDX + "/* invariants 7 and 8 */\n", "8"),
                                  ("docs/a.md", "Invariants 7-9\n", "9"),
                                  ("tests/mutants.txt", "why: B16: x\n", "B16")):
            with self.subTest(name=name):
                self.fires(name, text, f"{cited} is cited")
                (self.root / name).unlink()

    def test_rows_before_the_heading_do_not_count(self):
        self.write("src/engine/a.c", SPDX)
        self.fires("docs/abi.md", "| 3 | x |\nInvariant 3\n", ":2: 3 is cited")

    def test_section_number(self):
        self.fires("src/engine/a.c", SPDX + "/* abi.md 1.4 */\n", "a section by its number")


class Documents(TreeTest):
    """What comments and documents say of other files."""

    def setUp(self):
        super().setUp()
        self.write("docs/a.md", "# A title\n\n## One, or two: `x`\n```\n# no heading\n```\n")
        self.write("docs/decisions/0001-why.md", "x\n")
        self.write("src/vmm/boot/acpi.c", SPDX)
        self.write("include/asyncpf/asyncpf.h", SPDX)
        self.write("tests/unit/b_test.c", SPDX)
        self.write("src/port/io.h", SPDX)

    def test_what_is_there(self):
        self.write("src/vmm/boot/b.c", SPDX + """\
/*
 * acpi.c, boot/acpi.c, vmm/boot/acpi.c, src/vmm/boot/acpi.c:f(), types.h, asyncpf/asyncpf.h,
 * base/types.h, tests/unit/b_test.c, docs/, docs/decisions/0001, docs/a.md, vmm/README,
 * ../boot/acpi.c, *.c, and/or, X.h. Others': linux/kvm.h, arch/x86/kvm/x86.c, /etc/x.md, <a.h>.
 */
int f(const char *docs_none_md); /* "docs/{none}.md" */
const char *const name = "docs/none.md";
""".replace(", X.h", ""))
        self.write("docs/b.md", "[a](a.md#one-or-two-x) [c](../src/vmm/boot/acpi.c) "
                   "[d](https://example.org/none.md) [e](#here) `a.md`\n\n## Here\n")
        self.write("tools/a.py", "# SPDX-License-Identifier: x\n\"\"\"See docs/a.md.\"\"\"\n"
                   "A = 'docs/none.md'\n")
        self.assertEqual(self.tidy(), [])

    def test_no_such_path(self):
        words = ("port/mem.h", "tests/unit/none_test.c", "none.c", "docs/none.md", "docs/none/",
                 "docs/README", "docs/decisions/0002", "../boot/none.c")
        for name, before, after in (
                ("src/vmm/boot/b.c", SPDX + "/*\n", " */\n"), ("docs/b.md", "x\n", "y\n"),
                ("tools/a", "#!/bin/sh\n# SPDX-License-Identifier: x\n", ""),
                ("tools/a.py", '# SPDX-License-Identifier: x\ndef f():\n    """Of\n', '    """\n')):
            with self.subTest(name=name):
                mark = "# " if name == "tools/a" else ""
                self.write(name, before + "".join(f"{mark}{w}, x\n" for w in words) + after)
                first = before.count("\n") + 1
                self.assertEqual(self.tidy(), [
                    f"{name}:{n}: {word} is named, there is no such file or folder"
                    for n, word in enumerate(words, first)])
                (self.root / name).unlink()

    def test_functions(self):
        self.write("src/vmm/boot/acpi.c", SPDX + "int acpi_add(void);\n")
        self.write("src/base/a.c", SPDX + "/* vmm/boot/acpi.c:acpi_add; docs/a.md: this */\n")
        self.assertEqual(self.tidy(), [])
        self.fires("src/base/a.c", SPDX + "/* vmm/boot/acpi.c:acpi_put */\n",
                   ":2: vmm/boot/acpi.c:acpi_put is named, it has no such function")

    def test_links(self):
        self.fires("docs/b.md", "[a](none)\n", ":1: link to none,")
        self.fires("docs/b.md", "[a](a.md#three)\n", ':1: "three" of a.md is named')
        self.fires("docs/b.md", "[a](#three)\n", ':1: "three" of b.md is named')

    def test_headings(self):
        self.write("src/base/a.c", SPDX + '/* docs/a.md, "A title" */\n')
        self.assertEqual(self.tidy(), [])
        for heading in ("Three", "no heading"):
            self.fires("src/base/a.c", SPDX + f'/* (docs/a.md, "{heading}") */\n',
                       f':2: "{heading}" of docs/a.md is named')


class Width(TreeTest):
    def reflow(self, text):
        self.write("docs/a.md", text)
        subprocess.run([SOURCE / "tools/tidy", "--root", self.root, "--reflow"],
                       capture_output=True, check=True)
        return (self.root / "docs/a.md").read_text(encoding="utf-8")

    def test_too_wide(self):
        self.fires("docs/a.md", "x " * 60 + "y\n", ":1: 121 columns")
        self.fires("docs/a.md", "    " + "x " * 60 + "y\n", ":1: 125 columns")

    def test_a_subject_once(self):
        self.fires("docs/caveats.md", "- **A** is.\n- **B** is.\n- **A** is not.\n",
                   ":3: **A** once more")

    def test_what_cannot_be_broken(self):
        self.write("docs/a.md", "x " * 59 + "yz\n\n| " + "x " * 100 + "|\n" + "y" * 130 + "\n")
        self.assertEqual(self.tidy(), [])

    def test_reflow(self):
        wide = ("word " * 30).strip()
        self.assertEqual(self.reflow(f"# T\n\n{wide}\nend\n\nshort\nlines\n"),
                         "# T\n\n" + ("word " * 24).strip() + "\n" + "word " * 6
                         + "end\n\nshort\nlines\n")
        self.assertEqual(self.reflow(f"- {wide}\n  end\n- b\n"),
                         "- " + ("word " * 23).strip() + "\n  " + "word " * 7 + "end\n- b\n")
        for kept in (f"| {wide}|\n", f"```\n{'x' * 130}\n```\n", "1. a\n   b\n2. c\n"):
            self.assertEqual(self.reflow(kept), kept)

    def test_reflow_makes_no_item(self):
        for word in ("-", "1024.", "#"):
            text = self.reflow("w " * 59 + f"ww {word} and more\n")
            self.assertEqual(text, ("w " * 59).strip() + f"\nww {word} and more\n")


class Commits(TreeTest):
    def git(self, *words):
        env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            env.pop(name, None)
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words],
                       cwd=self.root, check=True, capture_output=True, env=env)

    def test_messages(self):
        try:
            self.git("init")
        except FileNotFoundError:
            self.skipTest("git is not installed")
        self.git("commit", "--allow-empty", "-m", "good: has a body", "-m", "Why.")
        self.assertEqual(self.tidy(), [])
        self.git("commit", "--allow-empty", "-m", "bad: has none")
        self.assertIn("no body", self.tidy()[0])
        self.git("commit", "--allow-empty", "-m", "bad: " + "x" * 70, "-m", "Why.")
        self.assertIn("subject of 75 columns", self.tidy()[0])


class Purity(TreeTest):
    def purity(self, text):
        self.write("src/engine/a.c", SPDX + text)
        return subprocess.run([SOURCE / "tools/purity", self.root / "src/engine/a.c"],
                              capture_output=True, text=True, check=False)

    def test_pure(self):
        done = self.purity('#include "base/assert.h"\n'
                           "int f(int *a);\n"
                           "int f(int *a)\n{\n\tASSERT(a);\n"
                           "\t__builtin_memset(a, 0, 4096);\n\treturn 0;\n}\n")
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_impure(self):
        done = self.purity("void *malloc(unsigned long);\nvoid *f(void);\n"
                           "void *f(void)\n{\n\treturn malloc(9);\n}\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("needs malloc", done.stdout)

    def test_not_freestanding(self):
        done = self.purity("#include <no_such_header.h>\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("does not compile", done.stdout)


if __name__ == "__main__":
    unittest.main()
