# SPDX-License-Identifier: Apache-2.0
"""Prints where in a prefix this Python looks for modules, as a path below it.

usage: python_folder.py PREFIX

Debian's Python looks in /usr/lib/python3/dist-packages and in
/usr/local/lib/python3.N/dist-packages. In a prefix of which it knows nothing, what every
Python is told: lib/python3.N/site-packages. Test: tests/integration/install_test.py
"""
import pathlib
import site
import sys


def folder_in(prefix, looks_in):
    for folder in map(pathlib.PurePath, looks_in):
        # Of /usr, not what is in /usr/local.
        if folder.is_relative_to(prefix) and folder.relative_to(prefix).parts[:1] == ("lib",):
            return folder.relative_to(prefix)
    return pathlib.PurePath("lib", f"python3.{sys.version_info.minor}", "site-packages")


if __name__ == "__main__":
    print(folder_in(sys.argv[1], site.getsitepackages()))
