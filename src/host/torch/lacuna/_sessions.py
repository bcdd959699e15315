# SPDX-License-Identifier: Apache-2.0
"""Sessions by the text that opens them. An operator carries that text, not a handle: a compiled or exported graph then
means the same in every process, and opens what it needs there."""
import collections
import itertools
import json
import threading

from ._library import LIBRARY, error

SHARED = 0  # the session that calls with the same text share
MOST_SHARED = 64

_lock = threading.RLock()  # a Session may be collected, and close, while one is opened
_open = collections.OrderedDict()  # (text, number) -> handle; shared ones used last stand last
_numbers = itertools.count(1)


def handle_of(text, number):
    """The library's handle of a session, opened when first asked for.

    Raises ValueError where the text names no method or a value out of range."""
    key = (text, number)
    with _lock:
        handle = _open.get(key)
        if handle is None:
            handle = LIBRARY.lacuna_torch_open(text.encode())
            if not handle:
                raise ValueError(f"lacuna: {error()}")
            _open[key] = handle
            _close_oldest()
        if number == SHARED:
            _open.move_to_end(key)
        return handle


def _close_oldest():
    shared = [key for key in _open if key[1] == SHARED]
    for key in shared[:-MOST_SHARED]:
        LIBRARY.lacuna_torch_close(_open.pop(key))


def new_number():
    return next(_numbers)


def close(text, number):
    with _lock:
        handle = _open.pop((text, number), None)
    if handle:
        LIBRARY.lacuna_torch_close(handle)


def report(text, number):
    """The session's report as Python has JSON."""
    found = LIBRARY.lacuna_torch_report(handle_of(text, number))
    if found is None:
        raise RuntimeError(f"lacuna: {error()}")
    return json.loads(found)


def reset_report(text, number):
    LIBRARY.lacuna_torch_reset_report(handle_of(text, number))


def announce(text, number, n_layers, prompt_tokens):
    LIBRARY.lacuna_torch_announce(handle_of(text, number), n_layers, prompt_tokens)
