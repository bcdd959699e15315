# SPDX-License-Identifier: Apache-2.0
"""The compiled library beside this file: its operators for torch, and the C functions that open and ask sessions."""
import ctypes
import pathlib

import torch

NEEDED = (2, 9)
NAME = "_lacuna.so"


def version_of(text):
    """(major, minor) of a version of torch: "2.13.0+cpu" gives (2, 13)."""
    major, minor = text.split("+")[0].split(".")[:2]
    return int(major), int(minor)


def check_torch(version):
    """Raises ImportError where this torch has no stable interface yet."""
    if version_of(version) < NEEDED:
        raise ImportError(f"lacuna needs torch {NEEDED[0]}.{NEEDED[1]} or newer, here is {version}; "
                          f"run: pip install 'torch>={NEEDED[0]}.{NEEDED[1]}'")


def load():
    """The C functions, as ctypes has them; the operators are torch.ops.lacuna from then on."""
    check_torch(torch.__version__)
    path = pathlib.Path(__file__).with_name(NAME)
    if not path.is_file():
        raise ImportError(f"lacuna: {NAME} is missing beside {__file__}: the package was not built; "
                          "run 'pip install .' in Lacuna's source tree, and import it from elsewhere")
    torch.ops.load_library(str(path))
    library = ctypes.CDLL(str(path))
    for name, result, arguments in (
            ("version", ctypes.c_char_p, []),
            ("open", ctypes.c_int64, [ctypes.c_char_p]),
            ("close", None, [ctypes.c_int64]),
            ("report", ctypes.c_char_p, [ctypes.c_int64]),
            ("reset_report", None, [ctypes.c_int64]),
            ("announce", None, [ctypes.c_int64, ctypes.c_int, ctypes.c_int64]),
            ("set_threads", None, [ctypes.c_int]),
            ("threads", ctypes.c_int, []),
            ("plan_of_shape", ctypes.c_int64, [ctypes.c_char_p, *[ctypes.c_int] * 4, ctypes.c_int64, *[ctypes.c_int] * 2,
                                               ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))]),
            ("error", ctypes.c_char_p, [])):
        function = getattr(library, f"lacuna_torch_{name}")
        function.restype, function.argtypes = result, arguments
    library.lacuna_torch_set_threads(max(1, torch.get_num_threads()))
    return library


LIBRARY = load()


def error():
    """The text of this thread's last failure."""
    return LIBRARY.lacuna_torch_error().decode()
