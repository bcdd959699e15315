# SPDX-License-Identifier: Apache-2.0
"""lacuna.Session: one method at work, with what it counts."""
import weakref

from . import _report, _sessions


class Session:
    """A method with a report of its own, to be given to lacuna.attention(..., method=session).

    method: a spec, "xattention:stride=8".
    audit: "off", "sample" (one row in 64 is also computed exactly) or "full" (every row).
    max_loss, max_error: a contract: heads that would lose more attention mass (output error) on average stay dense. Shares
        between 0 and 1; None = none. A session with a contract has no gradients.
    precision: "fast" = bfloat16 products where the machine has them, "high" = float32 throughout.
    windowed: true = the method also works in layers where the model lets rows see only a window of keys.
    options: any more words of the option text, "seed=7 kernel=cpu.avx512".

    Raises ValueError where a name or a value is unknown or out of range."""

    def __init__(self, method="dense", *, audit="off", max_loss=None, max_error=None, precision="fast", windowed=True, options=""):
        words = [method, f"audit={audit}", f"precision={precision}", f"windowed={'sparse' if windowed else 'dense'}", options]
        words += [f"{name}={value}" for name, value in (("max_loss", max_loss), ("max_error", max_error)) if value is not None]
        self.method = method
        self.options = " ".join(word for word in words if word)
        self.number = _sessions.new_number()
        _sessions.handle_of(self.options, self.number)  # refuses a bad text now
        weakref.finalize(self, _sessions.close, self.options, self.number)

    def report(self):
        """What the session has counted so far: a lacuna.Report."""
        return _report.of_json(_sessions.report(self.options, self.number))

    def reset_report(self):
        """Forgets what was counted."""
        _sessions.reset_report(self.options, self.number)

    def announce(self, n_layers, prompt_tokens=-1):
        """Says how many layers the model has (0 = unknown) and how long the prompt will be (-1 = unknown), for methods that
        ask."""
        if n_layers < 0 or prompt_tokens < -1:
            raise ValueError(f"got {n_layers} layers and {prompt_tokens} tokens, need 0 or more and -1 or more")
        _sessions.announce(self.options, self.number, n_layers, prompt_tokens)

    def __repr__(self):
        return f"lacuna.Session({self.options!r})"
