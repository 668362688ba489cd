// Include before any Highway header.
#pragma once

// Highway replaces EMU128 by its one-lane SCALAR target on GCC before 12.3, for fear of a bug in GCC's
// vectorizer. SCALAR lacks half vectors, which our kernels use; the unit tests run EMU128 too and would show
// the bug. Only x86 without SSSE3 ever gets there.
#ifndef HWY_BROKEN_EMU128
#define HWY_BROKEN_EMU128 0
#endif
