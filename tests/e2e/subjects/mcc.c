/* The MCC compiler's way to say it. */
#include <mcc.h>

static int x = 1;

int main(void) {
    int specid;
    if ((specid = mcc_speculate()) > 0) {
        x = 2;
        mcc_abort(specid);
    }
    if (x != 1) return 1;
    if ((specid = mcc_speculate()) > 0) {
        x = 3;
        mcc_commit(specid);
    }
    return x == 3 ? 0 : 1;
}
