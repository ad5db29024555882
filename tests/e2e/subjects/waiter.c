/* Speculates when it is told to on its standard input, and says what came of it. */
#include <mojave.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    char order;
    /* From here on it has a view of its own. */
    if (speculate() != 0 || spec_commit(spec_current()) != 0) return 9;
    dprintf(1, "ready\n");
    while (read(0, &order, 1) == 1) {
        int result = order == 'b' ? spec_barrier(0) : order == 's' ? speculate() : spec_commit(spec_current());
        dprintf(1, "%c %d %s\n", order, result, result < 0 ? spec_error() : "");
    }
    return 0;
}
