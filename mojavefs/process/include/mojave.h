/* libmojave: speculate, commit and abort inside a program.
 *
 * Link with -lmojave (pkg-config: mojave). Linux, x86_64, processes with one thread.
 */
#ifndef MOJAVE_H
#define MOJAVE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Enters a speculation. Returns
 *    0  on the commit branch: the speculation is open (its number: spec_current());
 *   >0  on the abort branch: the code it was aborted with; everything is as it was at the call
 *       (docs/libmojave.md lists what is put back, and what can't be);
 *   -1  if it can't be entered: errno, and spec_error() names what can't be put back (ENOTSUP: a second thread, a
 *       connected socket, shared memory ...), or EAGAIN, ENOMEM: no process for the checkpoint; EIO: the daemon refuses or
 *       is gone. One that hangs is waited for, here and in decisions, as in every call on the filesystem.
 * To the caller it is like fork(): a call that returns more than once, each time with memory as it is then. */
int speculate(void);

/* Votes to commit. What was done becomes part of the speculation around it, or of the process. Any order: one inside of
 * which others are open is committed when these are, and open again if one of them is aborted.
 * The vote is not waited for: spec_barrier() says when what was done is final. If it can't be, the process goes back to the
 * entry, from wherever it is by then. The next speculate(), exec() and exit() wait for it.
 * 0, or -1 and errno: ENOENT (no such speculation), EALREADY (it is aborted), EIO (the vote was sent, and the daemon has gone
 * before it said what came of it: nobody knows whether it is committed). Committing twice is harmless. */
int spec_commit(int id);

/* Goes back to where it was entered: speculate() returns code (> 0). Later ones are undone with it. Never returns, unless
 * it can't: -1 and errno: ENOENT, EALREADY (it is decided), EINVAL (code is not > 0). */
int spec_abort(int id, int code);

/* The same, with words that outlive it: spec_error() says them on the abort branch, 511 bytes of them at most. */
int spec_abort_saying(int id, int code, const char *words);

/* Goes back and enters again: speculate() returns 0 once more, and spec_code() the code. Errors as for spec_abort(). */
int spec_retry(int id, int code);

/* In a job of specrun, exec() with a speculation open runs the program inside of it, as a child that this process waits for
 * and ends as; it is run again from there when what it has read is undone. -1 and errno also as for speculate(). */

/* The innermost open speculation, 0 if there is none; how many are open; the code of the retry by which the innermost was
 * entered again, 0 at first. */
int spec_current(void);
int spec_depth(void);
int spec_code(void);

/* How a speculation of this process stands; -1 and ENOENT if it is not known, or was decided long ago; -1 and EIO if its vote
 * was sent and the daemon has gone before it said what came of it. */
#define SPEC_UNDECIDED 0
#define SPEC_COMMITTED 1
#define SPEC_ABORTED 2
int spec_outcome(int id);

/* Codes of aborts that nobody in this process asked for: it depended on another's speculation that was undone, or it can't
 * be committed because somebody else changed what it changed. */
#define SPEC_FELL 255
#define SPEC_CONFLICT 254

/* A token by which another process can own the innermost speculation, too: it is final when all its owners have committed,
 * and undone when one aborts. Only in a job of specrun. 0, or -1 and errno: ENOTSUP, ERANGE (size is too small; 32 will do).*/
int spec_share(char *token, size_t size);

/* Enters a speculation that owns the other's beside itself. Returns as speculate() does. */
int spec_own(const char *token);

/* Returns 0 when nothing that this process did can be undone any more; output to the world belongs behind it. -1 and errno:
 * EDEADLK inside a speculation of its own or its job's, which is decided later; ETIMEDOUT after timeout_ms (negative: it waits
 * as long as it takes); EIO if a vote was sent and the daemon has gone before it said what came of it. A program that ends
 * without having been told so by one of these calls is ended by SIGABRT, with a message. */
int spec_barrier(int timeout_ms);

/* Why the last speculate() failed or, on the abort branch, why it was aborted, for people; "" if there is nothing to say. */
const char *spec_error(void);

#ifdef __cplusplus
}
#endif
#endif
