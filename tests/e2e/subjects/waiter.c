/* Speculates when it is told to on its standard input, and says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int copy(const char *from, const char *to) {
    char text[64];
    int in = open(from, O_RDONLY), out = open(to, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (in < 0 || out < 0) return -1;
    ssize_t got = read(in, text, sizeof text);
    return got >= 0 && write(out, text, (size_t)got) == got && close(in) == 0 && close(out) == 0 ? 0 : -1;
}

int main(void) {
    char order;
    int last = 0, entered = 0;
    /* From here on it has a view of its own. */
    if (speculate() != 0 || spec_commit(spec_current()) != 0 || spec_barrier(-1) != 0) return 9;
    dprintf(1, "ready\n");
    while (read(0, &order, 1) == 1) {
        int result = -1;
        errno = 0;
        switch (order) {
        case 's':
            result = speculate();
            if (result == 0) last = spec_current(), entered++;
            break;
        case 'a': result = spec_abort(last, 7); break;
        case 'd': result = spec_depth(); break;
        case 'e': result = entered; break;
        case 'E': execl("/bin/echo", "echo", "it runs", (char *)0); break;
        case 'i': result = copy("data", "inside"); break;
        case 'c': result = spec_commit(last); break;
        case 'b': result = spec_barrier(10); break;
        case 'B': result = spec_barrier(-1); break;
        case 'o': result = spec_outcome(last); break;
        case 'r': result = copy("data", "copy"); break;
        case 'x': result = close_range(3, ~0U, 0); break;
        case 'w': result = copy("/dev/null", "after"); break;
        }
        dprintf(1, "%c %d %s\n", order, result, result < 0 && order != 's' ? strerror(errno) : spec_error());
    }
    return 0;
}
