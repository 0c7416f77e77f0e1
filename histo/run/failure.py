"""Describe a failure by its cause and message; tell transient causes."""

import traceback

from histo.errors import Cause, InputError
from histo.input_files import readable
from histo.run.isolation import less_memory
from histo.tables import Row

_SHORT_OF_MEMORY = ("can't allocate memory", "std::bad_alloc", "CUDA out of memory")
"""What torch and OpenVINO say where Python has a MemoryError."""


def describe_failure(error: BaseException, where: str, batches: bool = True) -> Row:
    """Turn an exception into the ledger's error columns; one that was not foreseen keeps its traceback.

    Args:
        error: What was raised.
        where: Begins the message.
        batches: Whether a smaller batch takes less memory.
    """
    if isinstance(error, InputError):
        return {"error_code": error.cause.value, "error": one_line(str(error)), "traceback": None}
    trace = readable("".join(traceback.format_exception(error)))
    if isinstance(error, OSError):
        message = f"{where}: {error.strerror or error}; mend the storage, or make room on it, and run it again"
        return {"error_code": Cause.STORAGE.value, "error": one_line(message), "traceback": trace}
    if isinstance(error, MemoryError) or any(words in str(error) for words in _SHORT_OF_MEMORY):
        message = f"{where}: memory is short; {less_memory(batches)}, and run it again"
        return {"error_code": Cause.OUT_OF_MEMORY.value, "error": one_line(message), "traceback": trace}
    message = f"{where}: {type(error).__name__}: {error}; please report this with the traceback"
    return {"error_code": Cause.INTERNAL.value, "error": one_line(message), "traceback": trace}


def one_line(message: str) -> str:
    r"""Make a message valid UTF-8 of a single line: a line break, as a file's name may have, becomes `%0A`.

    Examples:
        >>> one_line("new\nline.svs: not a slide")
        'new%0Aline.svs: not a slide'
    """
    return "%0A".join(readable(message).splitlines())


def is_transient(error_code: str) -> bool:
    """Whether a failure, also one that an older or newer histo entered, is tried again without being asked to."""
    return error_code not in {cause.value for cause in Cause if not cause.transient}
