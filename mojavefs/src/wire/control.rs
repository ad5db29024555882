//! What the command line (`mojavefs`, `specrun`) says to the process that serves a mount, over its control socket.
