"""Speculate, commit and abort inside a Python program.

    import mojave

    try:
        with mojave.speculation():
            transfer(a, b)          # an exception undoes all of it: memory, descriptors, files in a job of specrun
    except mojave.Aborted as aborted:
        print("nothing happened:", aborted.code, aborted.words)

An abort goes back in time: the process is as it was at the `with`, and what the block had computed is gone, the exception
too. Only its code and its words are left, in `Aborted`. The process must have one thread.
"""

import ctypes
import ctypes.util
import errno as errnos
import os
import traceback

__all__ = [
    "Aborted", "Refused", "speculation", "abort", "barrier", "commit", "retry", "current", "depth", "code", "execvp", "outcome",
    "own", "share", "speculate", "FELL", "CONFLICT", "RAISED",
]

#: The code of a speculation that was undone because it depended on another's, and of one in conflict.
FELL, CONFLICT = 255, 254
#: The code that an exception aborts with.
RAISED = 1


def _load():
    path = os.environ.get("LIBMOJAVE") or ctypes.util.find_library("mojave") or "libmojave.so"
    # The interpreter is held while it goes back in time: nothing else may run meanwhile.
    library = ctypes.PyDLL(path, use_errno=True)
    library.spec_error.restype = ctypes.c_char_p
    return library


_library = _load()


class Aborted(Exception):
    """A speculation came to nothing. `code` says why, and `words` for people: of an exception, its last line."""

    def __init__(self, code, words=""):
        why = f": {words}" if words else ""
        super().__init__(f"the speculation was aborted with code {code}{why}")
        self.code, self.words = code, words


class Refused(OSError):
    """A speculation can't be entered: something of the process can't be put back."""


def _decided(what, number):
    errno = ctypes.get_errno()
    raise OSError(errno, f"{what} speculation {number}: {os.strerror(errno)}")


def _words():
    return _library.spec_error().decode(errors="replace")


def _entered(code):
    if code < 0:
        errno = ctypes.get_errno()
        raise Refused(errno, _words() or os.strerror(errno))
    return code


def speculate():
    """Enters a speculation: 0 on the commit branch; later, on the abort branch, the code it was aborted with."""
    return _entered(_library.speculate())


def share():
    """A token, a text, by which another process can own the innermost speculation, too: it is final when all its owners have
    committed, and undone when one aborts. Raises `OSError` outside of speculations, or of `specrun`."""
    token = ctypes.create_string_buffer(64)
    if _library.spec_share(token, ctypes.c_size_t(len(token))) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"share the speculation: {os.strerror(errno)}")
    return token.value.decode()


def own(token):
    """Enters a speculation that owns another's beside itself. Returns as `speculate()` does."""
    return _entered(_library.spec_own(token.encode()))


def barrier(timeout=None):
    """Returns when nothing that this process did can be undone any more: output to the world belongs behind it. Raises
    `OSError` (`EDEADLK`) inside a speculation of its own or its job's: that is decided later; and `TimeoutError` after so many
    seconds."""
    if _library.spec_barrier(-1 if timeout is None else max(0, int(timeout * 1000))) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"barrier: {os.strerror(errno)}")


def execvp(file, args):
    """Runs a program instead of this one, as `os.execvp` does, but inside the open speculation: it is run again from here when
    what it has read is undone."""
    words = (ctypes.c_char_p * (len(args) + 1))(*map(os.fsencode, args), None)
    _library.execvp(os.fsencode(file), words)
    errno = ctypes.get_errno()
    raise OSError(errno, os.strerror(errno), file)


def commit(number=None):
    """Votes to commit a speculation, the innermost one if none is named. `barrier()` says when it is final."""
    number = current() if number is None else number
    if _library.spec_commit(number) != 0:
        _decided("commit", number)


def abort(code=RAISED, number=None, words=""):
    """Goes back to where a speculation was entered; `words` are found in `Aborted` there. Never returns."""
    number = current() if number is None else number
    _library.spec_abort_saying(number, code, words.replace("\0", "").encode(errors="replace"))
    _decided("abort", number)


def retry(code=RAISED, number=None):
    """Goes back to where a speculation was entered and enters it again; `code()` tells the code. Never returns."""
    number = current() if number is None else number
    _library.spec_retry(number, code)
    _decided("retry", number)


def current():
    """The innermost open speculation; 0 if there is none."""
    return _library.spec_current()


def depth():
    """How many speculations are open."""
    return _library.spec_depth()


def code():
    """The code of the retry by which the innermost speculation was entered again; 0 at first."""
    return _library.spec_code()


def outcome(number):
    """`None` while a speculation is undecided, `True` once it is committed, `False` if it was aborted."""
    found = _library.spec_outcome(number)
    if found < 0:
        _decided("outcome of", number)
    return {0: None, 1: True}.get(found, False)


class speculation:
    """What happens in the `with` block is kept if it ends well, and never happened if it raises. With the token of another's
    speculation (`share()`) it owns that, too."""

    def __init__(self, token=None):
        self.token = token

    def __enter__(self):
        code = speculate() if self.token is None else own(self.token)
        if code != 0:
            raise Aborted(code, _words())
        self.number = current()
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            commit(self.number)
            if depth() == 0:
                # What follows the block follows what it did.
                if _library.spec_barrier(-1) != 0 and ctypes.get_errno() == errnos.EIO:
                    raise OSError(errnos.EIO, _words())
        else:
            abort(RAISED, self.number, "".join(traceback.format_exception_only(kind, value)).strip())
        return False

    def abort(self, code=RAISED, words=""):
        """Undoes the block with a code, and words, of one's own."""
        abort(code, self.number, words)

    def retry(self, code=RAISED):
        """Begins the block again."""
        retry(code, self.number)
