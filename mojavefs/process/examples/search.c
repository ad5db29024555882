/* A search that explores by speculating: eight queens, without a line of code that goes back.
 *
 *   specrun -- search FILE [N]      writes the board to FILE as it goes; what is left there is the solution
 */
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* This was the wrong way: the choice before is made again, differently. */
static void fail(void) { spec_retry(spec_current(), spec_code() + 1); }

/* One of 0 to n-1, the right one. */
static int choose(int n) {
    int code = speculate();
    if (code < 0) {
        fprintf(stderr, "search: cannot speculate: %s\n", spec_error());
        exit(2);
    }
    if (code > 0) {
        if (spec_depth() == 0) exit(1); /* There is no solution. */
        fail();                         /* None of them was right, so something was wrong before. */
    }
    if (spec_code() == n) spec_abort(spec_current(), 1);
    return spec_code();
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: search FILE [N]\n");
        return 2;
    }
    int n = argc > 2 ? atoi(argv[2]) : 8, column[32];
    int board = open(argv[1], O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0644);
    if (board < 0 || n < 1 || n > 32) {
        perror("search");
        return 2;
    }
    for (int row = 0; row < n; row++) {
        column[row] = choose(n);
        if (dprintf(board, "%*s\n", column[row] + 1, "Q") < 0) return 2;
        for (int other = 0; other < row; other++)
            if (column[other] == column[row] || abs(column[other] - column[row]) == row - other) fail();
    }
    while (spec_depth() > 0) spec_commit(spec_current());
    return 0;
}
