/* The primitives as the MCC compiler has them (Smith, Tapus, Hickey: "The Mojave compiler", figure 1):
 *
 *   if ((specid = mcc_speculate()) > 0) {  ... mcc_abort(specid); ... mcc_commit(specid); return success; }
 *   return failure;
 */
#ifndef MCC_H
#define MCC_H

#include "mojave.h"

/* The speculation's number (> 0) on the commit branch; 0 after an abort, or if it can't be entered. */
static inline int mcc_speculate(void) { return speculate() == 0 ? spec_current() : 0; }

static inline void mcc_commit(int specid) { spec_commit(specid); }

/* Never returns for a speculation that is undecided. */
static inline void mcc_abort(int specid) { spec_abort(specid, 1); }

#endif
